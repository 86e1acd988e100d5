// A file of lines is read into a box of text, in the browser; a line that is not UTF-8 is named, and nothing is read then.
(function () {
  "use strict";
  const MOST = 600000; // what one request takes is bounded too

  function textOf(bytes) {
    let from = 0, number = 1;
    const lines = [];
    while (from <= bytes.length) {
      const found = bytes.indexOf(10, from), end = found < 0 ? bytes.length : found;
      try {
        lines.push(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(from, end)));
      } catch {
        throw new Error(`Line ${number} of the file is not UTF-8. Save it as UTF-8 and open it again; nothing was read.`);
      }
      from = end + 1;
      number += 1;
    }
    return lines.join("\n").trimEnd();
  }
  document.addEventListener("change", async (event) => {
    const input = event.target;
    if (!input.matches?.("input[type=file][data-lines]") || !input.files.length) return;
    const said = input.closest("label").parentElement.querySelector("[data-said]");
    const box = document.querySelector(input.dataset.lines), file = input.files[0];
    try {
      if (file.size > MOST) throw new Error(`The file has ${file.size.toLocaleString("en")} bytes; at most ${MOST.toLocaleString("en")} are read. Cut it in two.`);
      box.value = textOf(new Uint8Array(await file.arrayBuffer()));
      box.dispatchEvent(new Event("input", { bubbles: true }));
      said.textContent = "";
      box.focus();
    } catch (error) {
      said.textContent = error.message;
    }
    input.value = "";
  });
})();
