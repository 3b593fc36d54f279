// the request as a link, a command or a program
function linkOf() {
  const { query, documents } = bodyFor();
  const [model, compared] = chosenModels();
  const choices = { model: $("models").hidden ? "" : model, compared, raw: $("raw").checked, mark: $("mark").checked };
  const fields = new URLSearchParams([["query", query], ...documents.map((text) => ["passage", text])]);
  for (const [name, value] of Object.entries(choices)) if (value) fields.set(name, value);
  const link = new URL(location.href);
  // a fragment is not sent to the server, so no log has it
  link.hash = fields;
  return link.href;
}

let linked = new URLSearchParams();

// the fields as the link in the address bar has them
function readLink() {
  linked = new URLSearchParams(location.hash.slice(1));
  if (!linked.has("query")) return false;
  $("query").value = linked.get("query");
  fillPassages(linked.getAll("passage"));
  for (const name of ["raw", "mark"]) $(name).checked = linked.has(name);
  chooseLinkedModels();
  return true;
}

// again when the server has told its models
function chooseLinkedModels() {
  for (const id of ["model", "compared"]) {
    const name = linked.get(id);
    const found = [...$(id).options].some((option) => option.value === name);
    if (found) $(id).value = name;
    else if (name && $(id).options.length) say("server", `The link names the model ${name}, which this server does not have.`);
    $(id).onchange?.();
  }
}

// the server's own address, also where it stands below a path
function address(path) {
  return new URL(path, location.href.split("#")[0]).href;
}

// as the shell reads it: nothing is special between single quotes
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curlFor(model) {
  return [
    `curl ${quoted(address("rerank"))}`,
    `-H ${quoted("Content-Type: application/json")}`,
    ...(key ? [`-H "Authorization: Bearer $BGE_RERANK_API_KEY"`] : []),
    `-d ${quoted(JSON.stringify(bodyFor(model)))}`,
  ].join(" \\\n  ");
}

// a string of JSON is one of Python, too; RemoteReranker reads the key from BGE_RERANK_API_KEY itself
function pythonFor(models) {
  const { query, documents } = bodyFor();
  const texts = documents.map((text) => `    ${JSON.stringify(text)},\n`).join("");
  const options = $("raw").checked ? ", normalize=False" : "";
  return `from bge_rerank_integrations import RemoteReranker

query = ${JSON.stringify(query)}
documents = [
${texts}]
for model in ${JSON.stringify(models)}:
    print(model)
    with RemoteReranker(${JSON.stringify(address("."))}, "infinity", model=model${options}) as reranker:
        for found in reranker.rerank(query, documents):
            print(f"{found.score:.4f} {documents[found.index]}")
`;
}

async function copy(text, message) {
  $("copied").hidden = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // browsers keep the clipboard from pages without TLS
    $("copied").value = text;
    $("copied").hidden = false;
    $("copied").select();
    message = "The browser keeps its clipboard from this page; the text is here.";
  }
  $("copy-status").textContent = message;
}

function copyLink() {
  const link = linkOf();
  history.replaceState(null, "", link);
  copy(link, "Link copied; it has the query and the passages.");
}
