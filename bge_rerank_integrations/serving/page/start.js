$("lists").addEventListener("click", (event) => {
  const button = event.target.closest(".item");
  if (!button) return;
  button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
  draw();
});
for (const name of ["mouseover", "focusin"]) $("lists").addEventListener(name, light);
for (const name of ["mouseleave", "focusout"]) $("lists").addEventListener(name, () => light({ target: document.body }));
new ResizeObserver(draw).observe($("lists"));
$("all").addEventListener("click", () => show(last.documents.length));
$("ask").addEventListener("submit", (event) => { event.preventDefault(); rerank(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem("bge-rerank-key", key);
  say("key", "");
  about().then(() => { if ($("key-form").hidden) $("query").focus(); });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); rerank(); }
  if (event.key === "Escape") stop();
});
$("stop").addEventListener("click", stop);
$("query").addEventListener("input", checkLanguage);
$("passages").addEventListener("input", textsChanged);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { if ($("file").files[0]) readFile($("file").files[0]); $("file").value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("passages").classList.toggle("drop", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) readFile(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (!file) return;
  event.preventDefault();
  readFile(file);
});
$("link").addEventListener("click", copyLink);
$("curl").addEventListener("click", () => copy(chosenModels().map(curlFor).join("\n"), "Command for curl copied."));
$("python").addEventListener("click", () => copy(pythonFor(chosenModels()), "Program in Python copied."));
addEventListener("hashchange", () => {
  clearErrors();
  if (readLink() && !$("server-error").textContent) rerank();
});
if (!readLink()) {
  $("query").value = EXAMPLE.query;
  fillPassages(EXAMPLE.passages);
}
about();
