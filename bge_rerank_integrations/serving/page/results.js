function item(index, place, text) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "item";
  button.dataset.index = index;
  button.setAttribute("aria-expanded", "false");
  const number = document.createElement("span");
  number.className = "place";
  number.textContent = place;
  const content = document.createElement("span");
  content.className = "text";
  content.dir = "auto";
  content.textContent = text;
  button.append(number, content);
  row.append(button);
  return row;
}

function scoreOf(result, low, high) {
  const score = document.createElement("span");
  score.className = "score";
  const digits = last.raw ? 2 : 4;
  score.textContent = formatted(result.relevance_score, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const bar = document.createElement("span");
  bar.className = "bar";
  const share = (result.relevance_score - low) / (high - low || 1);
  bar.style.setProperty("--score", `${(100 * share).toFixed(2)}%`);
  const note = document.createElement("span");
  note.className = result.truncated ? "note cut" : "note";
  note.textContent = counted(result.tokens, "token") + (result.truncated ? ", its end not read" : "");
  note.title = "of query and passage";
  return [score, note, bar];
}

function moveOf(from, to) {
  const moved = from - to;
  const move = document.createElement("span");
  move.className = moved > 0 ? "move up" : "move";
  move.textContent = moved > 0 ? `↑ ${moved}` : moved < 0 ? `↓ ${-moved}` : "=";
  move.title = moved === 0 ? "stays" : `was number ${from + 1}`;
  return move;
}

// how far a sentence's score lies between the lowest and the highest of all sentences, from 0 to 1
function shares(results) {
  const scores = results.flatMap((result) => (result.highlights || []).map((sentence) => sentence.score));
  // not Math.min(...scores): there may be more than a call has arguments
  const low = scores.reduce((one, other) => Math.min(one, other), Infinity);
  const high = scores.reduce((one, other) => Math.max(one, other), -Infinity);
  return (score) => (score - low) / (high - low || 1);
}

function markSentences(button, text, highlights, share) {
  // the server counts characters, and not UTF-16's units
  const characters = Array.from(text);
  const digits = { minimumFractionDigits: last.raw ? 2 : 4, maximumFractionDigits: last.raw ? 2 : 4 };
  button.querySelector(".text").replaceChildren(...highlights.map(({ start, end, score }) => {
    const sentence = document.createElement(share(score) >= FAINT ? "mark" : "span");
    sentence.style.setProperty("--share", share(score).toFixed(3));
    sentence.title = formatted(score, digits);
    sentence.textContent = characters.slice(start, end).join("");
    return sentence;
  }));
  if (highlights.some(({ score }) => share(score) >= STRONG)) button.setAttribute("aria-expanded", "true");
}

// a list of the page: passages as given, or as a model ranks them
function list(id, { title, results }, limit) {
  const { documents, raw } = last;
  $(id).previousElementSibling.textContent = title;
  if (!results) {
    $(id).replaceChildren(...documents.slice(0, limit).map((text, index) => item(index, index + 1, text)));
    return;
  }
  const scores = results.map((result) => result.relevance_score);
  const low = raw ? Math.min(...scores) : 0;
  const high = raw ? Math.max(...scores) : 1;
  const share = shares(results);
  $(id).replaceChildren(...results.slice(0, limit).map((result, rank) => {
    const row = item(result.index, rank + 1, documents[result.index]);
    row.firstChild.append(...scoreOf(result, low, high));
    if (result.highlights) markSentences(row.firstChild, documents[result.index], result.highlights, share);
    return row;
  }));
}

function show(limit) {
  const { documents, before, after } = last;
  list("before", before, limit);
  list("after", after, limit);
  const places = new Map((before.results || []).map(({ index }, place) => [index, place]));
  $("after").querySelectorAll(".item").forEach((element, place) => {
    const index = Number(element.dataset.index);
    element.querySelector(".score").append(moveOf(places.get(index) ?? index, place));
  });
  $("more").hidden = documents.length <= limit;
  $("all").textContent = `Show all ${formatted(documents.length)}`;
  $("lists").hidden = false;
  draw();
}

function draw() {
  const box = $("lists").getBoundingClientRect();
  const paths = [];
  const ends = new Map([...$("after").querySelectorAll(".item")].map((element, rank) => [element.dataset.index, [element, rank]]));
  for (const [place, element] of $("before").querySelectorAll(".item").entries()) {
    const end = ends.get(element.dataset.index);
    if (!end) continue;
    const [from, to] = [element.getBoundingClientRect(), end[0].getBoundingClientRect()];
    const [x1, y1] = [from.right - box.left, from.top + from.height / 2 - box.top];
    const [x2, y2] = [to.left - box.left, to.top + to.height / 2 - box.top];
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x1} ${y1} C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`);
    path.dataset.index = element.dataset.index;
    if (end[1] < place) path.classList.add("up");
    paths.push(path);
  }
  $("lines").replaceChildren(...paths);
}

function light(event) {
  const index = event.target.closest(".item")?.dataset.index;
  $("lines").classList.toggle("some", index !== undefined);
  for (const element of $("lists").querySelectorAll("[data-index]"))
    element.classList.toggle("lit", element.dataset.index === index);
}
