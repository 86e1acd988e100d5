// A sitting of blind judgements by keyboard: the keys answer only while its frame has the focus, so that they mean nothing
// elsewhere. The frame takes the focus when a sitting begins, and has it still when the next prompt stands in it.
(function () {
  "use strict";
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "same" };
  document.addEventListener("keydown", (event) => {
    const choice = keys[event.key];
    if (!choice || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (!event.target.matches?.(".lpr-sitting")) return;
    event.preventDefault();
    const button = document.getElementById("lpr-judge-" + choice);
    if (button?.checkVisibility()) button.click();
  });
  let began = "";
  function show(frame) {
    const sitting = new URLSearchParams(location.search).get("sitting") ?? "";
    if (sitting && sitting !== began) frame.focus();
    began = sitting;
  }
  window.lprSitting = show;
})();
