/** What the example page does: it runs the self-test, shows the golden images with their answers, and takes yours. */
import { RELEASE, agrees, load, pixelsOf } from "../index.js";

const { height, width, channels } = RELEASE.input;
const page = (id) => document.getElementById(id);

/** Resolves to what selfTest() returned. */
globalThis.finished = show();

async function show() {
  try {
    const model = await load();
    const runs = Number(new URLSearchParams(location.search).get("runs") ?? 1000);
    await showGolden(model);
    const report = await model.selfTest({ runs });
    showReport(report);
    page("picture").addEventListener("change", (event) => showPicture(model, event.target.files[0]));
    page("picture").disabled = false;
    return report;
  } catch (error) {
    page("state").textContent = error.message;
    page("state").className = "bad";
    throw error;
  }
}

async function showGolden(model) {
  const response = await fetch(`../release/${RELEASE.golden.images}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  for (const [at, golden] of RELEASE.golden.labels.entries()) {
    const pixels = bytes.subarray(at * height * width * channels, (at + 1) * height * width * channels);
    const [best] = await model.classify(pixels);
    const isGolden = best.label === RELEASE.labels[golden];
    const figure = document.createElement("figure");
    figure.append(drawn(pixels), captionOf(best, isGolden ? "" : `, golden: ${RELEASE.labels[golden]}`));
    page("golden").append(figure);
  }
}

function showReport(report) {
  const sorted = report.samples_ns.map((sample) => sample / 1e6).sort((a, b) => a - b);
  const ms = (share) => `${sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)].toFixed(3)} ms`;
  const isGood = agrees(report);
  page("state").textContent = isGood ? "The golden answers are the same here." : "The golden answers differ here.";
  page("state").className = isGood ? "good" : "bad";
  const rows = [
    ["largest difference of an output", `${report.golden.largest_difference} (at most ${RELEASE.golden.tolerance})`],
    ["one inference here", `${ms(0)} at least, ${ms(0.5)} at the median, ${ms(0.99)} at p99, of ${sorted.length} runs`],
    ["scope", report.scope],
    ["runtime", report.runtime_version],
    ["device", report.device],
    ["model", `sha256 ${report.model_sha256}`],
  ];
  page("figures").replaceChildren(...rows.map(([name, value]) => rowOf(name, value)));
  page("report").textContent = JSON.stringify(report);
}

async function showPicture(model, file) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(await createImageBitmap(file), 0, 0, width, height);
  const answers = await model.classify(pixelsOf(context.getImageData(0, 0, width, height)));
  const list = document.createElement("ol");
  for (const { label, score } of answers.slice(0, 5)) {
    const item = document.createElement("li");
    item.textContent = `${label}: ${score.toFixed(4)}`;
    list.append(item);
  }
  page("answers").replaceChildren(canvas, list);
}

function drawn(pixels) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      image.data[4 * pixel + channel] = pixels[pixel * channels + Math.min(channel, channels - 1)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function captionOf({ label, score }, remark) {
  const caption = document.createElement("figcaption");
  caption.textContent = `${label} (${score.toFixed(3)})${remark}`;
  return caption;
}

function rowOf(name, value) {
  const row = document.createElement("tr");
  for (const [tag, text] of [["th", name], ["td", value]]) {
    const cell = document.createElement(tag);
    cell.textContent = text;
    row.append(cell);
  }
  return row;
}
