// A document that records what the script of page.html draws, and a server with fixed answers.
const sent = ANSWERS;
const calls = { texts: [], rectangles: [], rows: 0 };
const recorder = {
  fillText: (text) => calls.texts.push(text),
  strokeRect: (...box) => calls.rectangles.push(box),
  measureText: () => ({ width: 50 }),
};
for (const name of ["beginPath", "closePath", "moveTo", "lineTo", "stroke", "fill", "fillRect", "arc", "drawImage"])
  recorder[name] = () => {};
const elements = {};
function element(id) {
  const listeners = {};
  return elements[id] ||= {
    id, hidden: true, value: id === "score" ? "0.5" : "", listeners, style: {}, clientWidth: 64,
    addEventListener: (kind, listener) => { listeners[kind] = listener; },
    classList: { add() {}, remove() {} },
    getContext: () => recorder,
    tBodies: [{
      replaceChildren: () => { calls.rows = 0; },
      insertRow: () => { calls.rows += 1; return { insertCell: () => ({ append() {} }) }; },
    }],
  };
}
globalThis.document = { getElementById: element, createElement: () => element("new" + Math.random()) };
Object.assign(globalThis, { innerHeight: 600, devicePixelRatio: 1, addEventListener() {} });
globalThis.createImageBitmap = async () => ({ width: 64, height: 48 });
globalThis.fetch = async (path) => ({ ok: path in sent, status: 200, json: async () => sent[path] });
async function afterwards() {
  const rest = () => new Promise((resolve) => setTimeout(resolve, 20));
  await rest();
  elements.file.listeners.change({ target: { files: [{}], value: "a.png" } });
  await rest();
  const { texts, rectangles, rows } = JSON.parse(JSON.stringify(calls));
  elements.score.value = "0.2";
  elements.score.listeners.input();
  console.log(JSON.stringify({
    texts, rectangles, rows, "rows at 0.2": calls.rows,
    size: [elements.canvas.width, elements.canvas.height], error: elements.message.className,
  }));
}
