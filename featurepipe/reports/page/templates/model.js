import * as ort from "./onnxruntime-web.js";

const MOST_CLASSES = 5;
const LONG_NAME = 14;
const ERROR = 3;
const THUMBNAIL_PX = 224;
// WebAssembly has 4 GB, and a picture takes some 60 bytes a pixel.
const MOST_PIXELS = 40e6;

const { attributes } = JSON.parse(document.getElementById("facts").textContent);
const [status, pictures, cards, files, clear] =
  ["status", "pictures", "cards", "files", "clear"].map((id) => document.getElementById(id));

// More threads need headers that plain web servers do not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime-web.wasm", import.meta.url).href };

async function openModel() {
  const response = await fetch(new URL("model.onnx", import.meta.url));
  if (!response.ok) throw new Error(`model.onnx: ${response.status} ${response.statusText}`);
  const model = new Uint8Array(await response.arrayBuffer());
  return ort.InferenceSession.create(model, { enableMemPattern: false, logSeverityLevel: ERROR });
}

/** A picture as predict decodes it: upright, over white, without colour management. */
async function decode(file) {
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  }).catch(() => { throw new Error("This browser cannot read it as a picture."); });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Error(`It has ${Math.round(width * height / 1e6)} megapixels. Use a picture of at most ${MOST_PIXELS / 1e6}.`);
  }
  const canvas = draw(bitmap, width, height);
  const scale = Math.min(1, THUMBNAIL_PX / Math.max(width, height));
  const thumbnail = draw(bitmap, Math.ceil(width * scale), Math.ceil(height * scale));
  bitmap.close();
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return { pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]), thumbnail };
}

function draw(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}

/** For each attribute: whether there is an answer, and the most probable classes. */
async function answer(model, pixels) {
  const kinds = ["probabilities", "given", "known"];
  const names = Object.keys(attributes);
  const outputs = await model.run(
    { pixels }, names.flatMap((name) => kinds.map((kind) => `${name}_${kind}`)),
  );
  return names.map((name) => {
    const [probabilities, given, known] = kinds.map((kind) => outputs[`${name}_${kind}`].data);
    const classes = attributes[name].classes.map((text, column) => (
      { text, probability: probabilities[column], given: Boolean(given[column]) }
    ));
    classes.sort((one, other) => other.probability - one.probability);
    return { name, known: Boolean(known[0]), classes };
  });
}

function element(kind, text = "", classes = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

/** A name whose characters can all be seen. */
function visible(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
}

function isolated(text) {
  return element("bdi", visible(text));
}

function addCard(name) {
  const card = element("li", "", "card");
  const picture = element("p", "…", "quiet");
  const words = element("div");
  const heading = element("h3");
  heading.append(isolated(name));
  words.append(heading);
  card.append(picture, words);
  cards.append(card);
  pictures.hidden = false;
  return { card, picture, words };
}

function show({ name, known, classes }) {
  const given = classes.filter((one) => one.given);
  const heading = element("h4", "", known ? "" : "unknown");
  heading.append(isolated(name), ": ");
  if (!known) heading.append("unknown");
  else if (!given.length) heading.append("none");
  given.forEach((one, number) => heading.append(number ? ", " : "", isolated(one.text)));
  const bars = element("ol", "", "bars");
  bars.setAttribute("role", "list");
  // Whatever was given is shown, and as many others as there is room for.
  const shown = classes.filter((one, number) => one.given || number < MOST_CLASSES);
  for (const one of shown) {
    const share = `${(100 * one.probability).toFixed(1)}`;
    const line = element("li", "", one.given ? "given" : "");
    line.classList.toggle("long", one.text.length > LONG_NAME);
    line.dataset.probability = one.probability;
    const bar = element("i");
    bar.style.width = `${share}%`;
    line.append(isolated(one.text), " ", element("b", `${share}\u00a0%`), " ", bar);
    bars.append(line);
  }
  return [heading, bars];
}

async function look(model, file) {
  const { card, picture, words } = addCard(file.name);
  // The card is painted before the model holds the page up.
  await new Promise((resume) => { setTimeout(resume); });
  try {
    const { pixels, thumbnail } = await decode(file);
    // The name beside it says as much as anything here could.
    thumbnail.setAttribute("aria-hidden", "true");
    picture.replaceWith(thumbnail);
    const answers = await answer(model, pixels);
    words.append(...answers.flatMap(show));
    card.classList.toggle("unknown", answers.some((one) => !one.known));
  } catch (error) {
    picture.textContent = "No answer";
    words.append(element("p", error.message || String(error), "failed"));
  }
}

const queue = [];
let isBusy = false;

async function lookAtAll(model) {
  if (isBusy) return;
  isBusy = true;
  let done = 0;
  while (queue.length) {
    done += 1;
    status.textContent = `Looking at picture ${done} of ${done + queue.length - 1} …`;
    await look(model, queue.shift());
  }
  status.textContent = done === 1 ? "1 picture done." : `${done} pictures done.`;
  isBusy = false;
}

function listen(model) {
  const add = (given) => {
    queue.push(...given);
    if (queue.length) lookAtAll(model);
  };
  files.addEventListener("change", () => {
    add(files.files);
    files.value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    add(event.dataTransfer.files);
  });
  clear.addEventListener("click", () => {
    queue.length = 0;
    cards.replaceChildren();
    pictures.hidden = true;
    status.textContent = "Ready.";
    files.focus();
  });
  files.disabled = false;
  status.textContent = "Ready.";
}

status.textContent = "Loading the model …";
openModel().then(listen, (error) => {
  status.textContent = `The model cannot be loaded (${error.message || error}). Serve the whole folder, and reload the page.`;
});
