"use strict";
// The page: asks /v1 and shows what it answers. What came last is asked again when a filter changes.
const $ = (id) => document.getElementById(id);
let asked = null;

async function call(path, options) {
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail || found.title);
  return found;
}

function guarded(job) {
  return async (...given) => {
    $("message").textContent = "";
    try {
      await job(...given);
    } catch (error) {
      $("message").textContent = error.message;
    }
  };
}

function form(parts) {
  const body = new FormData();
  for (const part of parts) {
    if (part.file) body.append("image", part.file);
    else body.append("id", part.id);
  }
  return body;
}

function tile(photograph, caption) {
  const figure = document.createElement("figure");
  const button = document.createElement("button");
  button.type = "button";
  button.title = "Find the ones like this";
  const image = document.createElement("img");
  image.src = `v1/images/${photograph.id}`;
  image.alt = photograph.label;
  image.loading = "lazy";
  button.append(image);
  button.addEventListener("click", () => search({ id: photograph.id, label: photograph.label }));
  const text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(button, text);
  return figure;
}

const search = guarded(async (what) => {
  asked = what;
  const body = form([what]);
  body.append("k", $("k").value);
  if ($("under").value) body.append("under", $("under").value);
  const answer = await call("v1/search", { method: "POST", body });
  $("found-title").textContent = `${answer.neighbours.length} nearest to ${what.label}, by version ${answer.version ?? "of a folder"}`;
  $("found").replaceChildren(
    ...answer.neighbours.map((one) => {
      const figure = tile(one, `${one.label} · ${one.distance.toFixed(3)} · cluster ${one.cluster} `);
      const why = document.createElement("button");
      why.type = "button";
      why.textContent = "why?";
      why.addEventListener("click", () => compare(what, one));
      figure.lastChild.append(why);
      return figure;
    }),
  );
});

const compare = guarded(async (first, second) => {
  const found = await call("v1/explain", { method: "POST", body: form([first, second]) });
  const dialog = $("compare");
  dialog.querySelector("h2").textContent = `Distance ${found.distance.toFixed(3)}: what glows makes them alike`;
  dialog.querySelector(".pair").replaceChildren(
    ...[found.first, found.second].map((png, i) => {
      const image = document.createElement("img");
      image.src = `data:image/png;base64,${png}`;
      image.alt = i ? second.label : first.label;
      return image;
    }),
  );
  dialog.showModal();
});

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (file) search({ file, label: file.name || "the photograph pasted" });
  else $("message").textContent = "That is no photograph: drop, paste or choose an image file.";
}

const start = guarded(async () => {
  const [model, classes, samples] = await Promise.all([call("v1/model"), call("v1/classes"), call("v1/samples")]);
  const recall = model.metrics?.["fine.recall_at_1"];
  $("model").textContent =
    `${model.name} version ${model.version ?? "(a folder)"}` + (recall ? `, recall@1 ${recall.value.toFixed(3)}` : "");
  for (const one of classes.classes) $("under").append(new Option(`${one.label} (${one.count})`, one.label));
  $("asked").replaceChildren(...samples.samples.map((one) => tile(one, "")));
});

$("file").addEventListener("change", (event) => take(event.target.files));
$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") $("file").click();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
$("ask").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["under", "k"]) $(id).addEventListener("change", () => asked && search(asked));
$("compare").querySelector("button").addEventListener("click", () => $("compare").close());
start();
