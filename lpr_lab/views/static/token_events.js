// Listens once per page for all token strips, also those that are drawn later or changed in place: which strip an event
// met, and what it holds by now, is asked when it happens.
if (!window.lprTokenStrip.listens) {
  window.lprTokenStrip.listens = true;
  (function () {
    "use strict";
    const of = window.lprTokenStrip.of;
    const held = (event) => event.altKey || event.ctrlKey || event.metaKey;
    const tokenAt = (target) => {
      const inner = target.closest("[data-i]");
      const outer = target.closest("[data-t]");
      return inner ? Number(inner.dataset.i) : outer ? Number(outer.dataset.t.split(" ")[0]) : null;
    };
    const isOption = (target) => target.getAttribute?.("role") === "option";

    document.addEventListener("click", (event) => {
      const view = of(event.target);
      if (!view) return;
      const cell = event.target.closest(".lpr-grid button");
      const token = tokenAt(event.target);
      if (cell) {
        const layer = Number(cell.dataset.l);
        const expert = Number(cell.dataset.e);
        view.pick(layer, view.state.layer === layer && view.state.expert === expert ? null : expert);
      } else if (event.target.closest("[data-all]")) view.pick(view.state.layer, null);
      else if (token !== null) view.select(token, { pin: true });
    });

    document.addEventListener("keydown", (event) => {
      const view = held(event) ? null : of(event.target);
      if (!view) return;
      const handle = isOption(event.target) ? keyOnToken : event.target.closest(".lpr-profile") ? keyOnLayers : keyOnCell;
      if (handle(view, event)) event.preventDefault();
    });
    function keyOnToken(view, { key, target }) {
      const here = Number(target.dataset.i);
      const { count } = view.numbers;
      const forward = view.reverse && view.strip.dataset.mode !== "tokens" ? -1 : 1;
      const go = { ArrowRight: here + forward, ArrowLeft: here - forward, Home: 0, End: count - 1 }[key];
      if (go !== undefined) view.select(Math.min(Math.max(go, 0), count - 1));
      else if (key === "ArrowUp") view.step(-1);
      else if (key === "ArrowDown") view.step(1);
      else if (key === "Enter" || key === " ") {
        view.select(here, { pin: true });
        view.say("Pinned " + view.spoken(here));
      } else if (key === "Escape") view.select(null, { focus: false });
      else return false;
      return true;
    }
    function keyOnLayers(view, { key }) {
      const jump = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 5, PageUp: -5 }[key];
      if (jump) view.step(jump);
      else if (key === "Home") view.setLayer(null, { aloud: false });
      else if (key === "End") view.setLayer(view.numbers.layers.at(-1), { aloud: false });
      else return false;
      return true;
    }
    function keyOnCell(view, { key, target }) {
      const cell = target.closest(".lpr-grid button");
      if (!cell) return false;
      if (key === "Escape") view.pick(view.state.layer, null);
      else return view.move(cell, key);
      return true;
    }

    document.addEventListener("focusin", (event) => {
      const view = isOption(event.target) ? of(event.target) : null;
      const token = Number(event.target.dataset?.i);
      if (view && view.state.token !== token) view.select(token, { focus: false });
    });

    // ---- pointing: the strip under the pointer shows the token there, until one is pinned
    let under = null;
    document.addEventListener("pointerover", (event) => {
      const view = event.pointerType === "touch" ? null : of(event.target);
      if (under && under !== view?.strip) of(under)?.hover(null);
      under = view?.strip ?? null;
      if (view && !view.isPinned()) view.hover(tokenAt(event.target));
    });
    document.addEventListener("pointerout", (event) => {
      if (event.relatedTarget || !under) return; // it left the window
      of(under)?.hover(null);
      under = null;
    });

    // ---- the layers, drawn over with the pointer
    const scrub = (view, event) => {
      const edges = view.columns.map((column) => column.getBoundingClientRect());
      const position = edges.findLastIndex((edge) => event.clientX >= edge.left);
      const next = position <= 0 ? null : view.numbers.layers[position - 1];
      if (next !== view.state.layer) view.setLayer(next, { aloud: false });
    };
    document.addEventListener("pointerdown", (event) => {
      const profile = event.target.closest?.(".lpr-profile");
      const view = profile && of(profile);
      if (!view) return;
      profile.setPointerCapture(event.pointerId);
      scrub(view, event);
    });
    document.addEventListener("pointermove", (event) => {
      const profile = event.target.closest?.(".lpr-profile");
      const view = profile?.hasPointerCapture(event.pointerId) && of(profile);
      if (view) scrub(view, event);
    });

    document.addEventListener("change", (event) => {
      const what = event.target.dataset?.set;
      const view = what ? of(event.target) : null;
      if (!view) return;
      if (what === "mode") view.setMode(event.target.value);
      if (what === "colour") view.setColour(event.target.value);
    });
  })();
}
