// paths without a slash in front: the server may stand below another path
async function call(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
    if (key) say("key", "That key is not the server's.");
    throw new Error("");
  }
  $("key-form").hidden = true;
  const body = await response.json().catch(() => null);
  return { response, body };
}

// whether what the page shows at first has still to be asked
let pending = true;

async function about() {
  try {
    const { response, body } = await call("info");
    if (response.status === 503) {
      $("about").textContent = body?.detail || "the model is being loaded";
      setTimeout(about, 2000);
      return;
    }
    showModels(body);
    // the example, or what a link has: at once, unless somebody was faster
    if (pending && !last && !running && !$("server-error").textContent) rerank(false);
    pending = false;
  } catch (error) {
    $("about").textContent = error.message ? "the server does not answer" : "";
  }
}

function showModels(info) {
  const { models, max_documents: most } = info;
  const options = () => models.map(({ model_id: name }) => new Option(name, name));
  $("model").replaceChildren(...options());
  $("compared").replaceChildren(new Option("no other", ""), ...options());
  $("models").hidden = models.length < 2;
  $("share").hidden = false;
  $("model").onchange = () => {
    const model = models[$("model").selectedIndex];
    $("about").textContent = `${model.model_id} · ${model.model_dtype} on ${model.device} · ` +
      `reads ${formatted(model.max_input_length)} tokens of query and passage · up to ${formatted(most)} passages`;
    languages = model.languages;
    checkLanguage();
  };
  $("compared").onchange = () => {
    comparedLanguages = models[$("compared").selectedIndex - 1]?.languages;
    checkLanguage();
  };
  chooseLinkedModels();
}

function showFailure({ model, response, body }) {
  const error = body?.error || {};
  const message = (chosenModels().length > 1 ? `${model}: ` : "") +
    (error.message || `The server answered ${response.status}.`);
  const field = (error.param || "").startsWith("documents") ? "passages"
    : error.param === "query" ? "query" : "server";
  // people count from 1
  say(field, message.replace(/document (\d+)/, (_, index) => `passage ${Number(index) + 1}`));
  if (field !== "server") $(field).focus();
}

function busy(run) {
  running = run;
  $("stop").hidden = !run;
  $("elapsed").textContent = "";
  for (const id of ["go", "lists"]) $(id).setAttribute("aria-busy", String(Boolean(run)));
  if (!run) return;
  const start = performance.now();
  const tick = () => {
    if (running !== run) return;
    $("elapsed").textContent =
      `${formatted((performance.now() - start) / 1000, { minimumFractionDigits: 1, maximumFractionDigits: 1 })} s`;
    setTimeout(tick, 100);
  };
  tick();
}

function stop() {
  if (!running) return;
  // the button is about to vanish
  if (document.activeElement === $("stop")) $("go").focus();
  running.abort();
}

// one sentence for each answer that there is something to say of, with the model's name if there are two
function showOfEach(id, answers, say) {
  const named = ({ model }, text) => (answers.length > 1 ? `${model}: ${text}` : text);
  const said = answers.map((answer) => [answer, say(answer)]).filter(([, text]) => text);
  $(id).textContent = said.map(([answer, text]) => named(answer, text)).join(" · ");
}

function cutOf({ body: { usage } }) {
  const cut = [];
  const count = usage.truncated_documents;
  if (usage.query_truncated) cut.push("the query");
  if (count) cut.push(counted(count, "passage"));
  return cut.length ? `Longer than the model reads: ${cut.join(" and ")}. ` +
    "What stands after the last token read had no part in the scores." : "";
}

function statusOf({ took, response, body }) {
  const scoring = /dur=([\d.]+)/.exec(response.headers.get("Server-Timing") || "");
  return `${counted(body.results.length, "passage")} in ${seconds(took)}` +
    (scoring ? `, ${seconds(Number(scoring[1]))} of it scoring` : "") +
    `; ${counted(body.usage.total_tokens, "token")} read`;
}

// the model's name, and that of the one beside it
function chosenModels() {
  return [$("model").value, $("compared").value].filter(Boolean);
}

// what the fields ask for, as the server takes it
function bodyFor(model) {
  return {
    query: $("query").value.trim(), documents: passagesOf($("passages").value),
    raw_scores: $("raw").checked || undefined, highlight: $("mark").checked || undefined, model: model || undefined,
  };
}

async function ask(model, signal) {
  const start = performance.now();
  const body = JSON.stringify({ ...bodyFor(model), return_tokens: true });
  const answer = await call("rerank", { method: "POST", signal, body });
  return { model, took: performance.now() - start, ...answer };
}

async function rerank(scrolls = true) {
  clearErrors();
  const { query, documents } = bodyFor();
  if (!query) say("query", "A query is needed.");
  if (!documents.length) say("passages", "At least one passage is needed.");
  if (!query || !documents.length) {
    $(query ? "passages" : "query").focus();
    return;
  }
  if (running) running.abort();
  const run = new AbortController();
  const raw = $("raw").checked;
  busy(run);
  $("cut").textContent = "";
  $("status").textContent = `Reading ${counted(documents.length, "passage")}…`;
  try {
    const models = chosenModels();
    // the server's own choice, as long as it has not told its models
    if (!models.length) models.push("");
    const answers = await Promise.all(models.map((model) => ask(model, run.signal)));
    const failed = answers.find(({ response }) => !response.ok);
    if (failed) {
      $("status").textContent = "";
      showFailure(failed);
      return;
    }
    showOfEach("status", answers, statusOf);
    showOfEach("cut", answers, cutOf);
    const rankings = answers.map(({ model, body }) => ({ title: model, results: body.results }));
    $("lists").classList.toggle("compared", rankings.length > 1);
    const [before, after] = rankings.length > 1 ? rankings
      : [{ title: "Before: as given", results: null }, { ...rankings[0], title: "After: by relevance" }];
    last = { documents, before, after, raw };
    show(SHOWN);
    if (scrolls && NARROW.matches) $("status").scrollIntoView();
  } catch (error) {
    if (error.name === "AbortError") {
      // another run may have taken its place
      if (running === run) $("status").textContent = last ? "Stopped. The results are those of before." : "Stopped.";
    }
    else {
      $("status").textContent = "";
      if (error.message) say("server", `The server cannot be reached: ${error.message}`);
    }
  } finally {
    if (running === run) busy(null);
  }
}
