"use strict";
// what is typed, pasted or dropped: the query and its passages
const $ = (id) => document.getElementById(id);
const NARROW = matchMedia("(max-width: 48rem)");
const SHOWN = 50;
// from these shares on, a sentence is marked, and its passage is shown whole
const FAINT = 0.1;
const STRONG = 0.5;
// the built-in model puts the three passages that answer first
const EXAMPLE = {
  query: "why do leaves change color in autumn",
  passages: [
    "Maple syrup is made from the sap of trees that are tapped in early spring.",
    "In autumn trees stop making chlorophyll, and the green of their leaves fades.",
    "The national flag of Canada has shown a red maple leaf since 1965.",
    "Paint that is exposed to sunlight changes its color over the years.",
    "The yellow pigments that show in autumn were in the leaf all summer, hidden by the green.",
    "Autumn begins in September in the northern half of the world and in March in the southern.",
    "Red colors of autumn leaves come from anthocyanins, which are made from trapped sugar.",
    "Evergreen trees keep their needles for several years.",
  ],
};
// letters of the catalog's languages; of others nothing is known
const LETTERS = {
  "English": ["Latin", /\p{Script=Latin}/u],
  "Chinese, English": ["Chinese or Latin", /[\p{Script=Latin}\p{Script=Han}]/u],
};
// the commonest words, as in languages.py
const COMMON = {
  English: "the of and to is that it for with this are you can how what does not which when",
  German: "der das und ist nicht ein eine zu mit den von für auf wird werden sich auch wie",
  French: "le la les des et est une dans que qui pas sur avec vous pour comment du au ce",
  Spanish: "el los las una por para como del más se es y que está cómo qué un lo su",
  Portuguese: "os um uma não com da em mais como é dos ao na pelo são você que o e",
  Italian: "il che di una è sono della gli nel alla come più dei delle un si lo e",
  Dutch: "het een en van niet met zijn voor dat ik je wordt hoe ook deze naar maar de",
};
const CHECKED_CHARACTERS = 10000;
let key = sessionStorage.getItem("bge-rerank-key") || "";
let running = null;
let last = null;
let languages = null;
let comparedLanguages = null;

// in the reader's own number format
function formatted(number, digits = {}) {
  return new Intl.NumberFormat(undefined, digits).format(number);
}

function seconds(milliseconds) {
  return `${formatted(milliseconds / 1000, { maximumSignificantDigits: 2 })} s`;
}

function counted(count, noun) {
  return `${formatted(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function say(id, message) {
  $(id + "-error").textContent = message;
  const field = $(id);
  if (field) field.setAttribute("aria-invalid", message ? "true" : "false");
}

function clearErrors() {
  for (const id of ["query", "passages", "server", "key"]) say(id, "");
}

function passagesOf(text) {
  const parts = /\n\s*\n/.test(text.trim()) ? text.split(/\n\s*\n/) : text.split("\n");
  return parts.map((part) => part.trim()).filter(Boolean);
}

function countPassages() {
  const count = passagesOf($("passages").value).length;
  $("passages-hint").textContent = counted(count, "passage");
}

// the language that a text seems to be in, by its commonest words; "" if that is English, or none
function languageOf(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [];
  const counts = Object.entries(COMMON).map(([language, common]) => {
    const known = new Set(common.split(" "));
    return [words.filter((word) => known.has(word)).length, language];
  });
  const english = counts.find(([, language]) => language === "English")[0];
  const others = counts.filter(([, language]) => language !== "English");
  const [most, language] = others.reduce((best, each) => (each[0] > best[0] ? each : best));
  return most >= 2 && most > 2 * english ? language : "";
}

function foreignTo(languages) {
  const [name, known] = LETTERS[languages] || [];
  if (!known) return "";
  const looks = (id) => {
    const text = $(id).value.slice(0, CHECKED_CHARACTERS);
    const letters = text.match(/\p{L}/gu) || [];
    if (letters.filter((letter) => !known.test(letter)).length > letters.length / 2) return `not ${name}`;
    return languageOf(text);
  };
  const reads = `this model reads ${languages.replace(", ", " and ")}, so the scores may mean little.`;
  const foreign = [["query", "the query"], ["passages", "the passages"]]
    .map(([id, what]) => [what, looks(id)]).filter(([, look]) => look);
  if (!foreign.length) return "";
  const inScript = foreign.filter(([, look]) => look.startsWith("not "));
  if (inScript.length) {
    return `Most letters of ${inScript.map(([what]) => what).join(" and ")} are ${inScript[0][1]}; ${reads}`;
  }
  return `By their words, ${foreign.map(([what, look]) => `${what} may be ${look}`).join(" and ")}; ${reads}`;
}

function checkLanguage() {
  const message = foreignTo(languages) || foreignTo(comparedLanguages);
  // said once, and not at every letter
  if ($("language").textContent !== message) $("language").textContent = message;
}

function textsChanged() {
  countPassages();
  checkLanguage();
}

function textOf(item) {
  if (typeof item === "string") return item;
  if (item && typeof item.text === "string") return `${item.title || ""} ${item.text}`.trim();
  throw new Error('each item must be a string, or an object with a "text"');
}

function parseFile(name, content) {
  if (/\.jsonl$/i.test(name)) {
    return content.split("\n").map((line) => line.trim()).filter(Boolean).map((line, number) => {
      try { return textOf(JSON.parse(line)); }
      catch (error) { throw new Error(`line ${number + 1}: ${error.message}`); }
    });
  }
  if (/\.json$/i.test(name)) {
    const items = JSON.parse(content);
    if (!Array.isArray(items)) throw new Error("a list was expected");
    return items.map(textOf);
  }
  return passagesOf(content);
}

function fillPassages(passages) {
  const separator = passages.some((passage) => passage.includes("\n")) ? "\n\n" : "\n";
  // an empty line would end a passage
  $("passages").value = passages.map((passage) => passage.replace(/\n\s*\n/g, "\n")).join(separator);
  textsChanged();
}

async function readFile(file) {
  say("passages", "");
  try {
    const content = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    fillPassages(parseFile(file.name, content.replace(/^\uFEFF/, "")));
    $("passages").focus();
  } catch (error) {
    say("passages", `${file.name} cannot be read: ${error.message}`);
  }
}
