// What the grids of cells share: numbers out of base64, elements without markup, and where an arrow key leads.
window.lprCells = {
  unpack: (text, Kind = Float32Array) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer),
  make(name, text = "", attributes = {}) {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  },
  // The place [column, row] that a key leads to from another; null where the key is none of ours.
  step([column, row], key, [lastColumn, lastRow], firstRow = 0) {
    const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-column, 0], End: [lastColumn, 0], PageDown: [0, 10], PageUp: [0, -10] }[key];
    if (!by) return null;
    const bound = (value, low, high) => Math.min(Math.max(value, low), high);
    return [bound(column + by[0], 0, lastColumn), bound(row + by[1], firstRow, lastRow)];
  },
  // Move the one tab stop of a grid to another of its cells, and the focus with it.
  focus(from, to) {
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  },
};
