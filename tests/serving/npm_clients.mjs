// What libraries for JavaScript send and read: node npm_clients.mjs NAME BASE_URL, in a folder with
// them in node_modules. Prints index and score of each document that the library returns.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const KEY = "the-key";
const query = "what is a panda";
const documents = ["no word of it", "a panda is a bear", "what a panda is", "is it"];
const scored = (results) => results.map((r) => [r.index, r.relevanceScore ?? r.relevance_score]);

const aiSdk = async (model) => {
  const { rerank } = await load("ai");
  const { ranking } = await rerank({ model, query, documents, topN: 3, maxRetries: 0 });
  return ranking.map((r) => [r.originalIndex, r.score]);
};

const CLIENTS = {
  "npm `@ai-sdk/cohere`": async (baseURL) => {
    const { createCohere } = await load("@ai-sdk/cohere");
    return aiSdk(createCohere({ baseURL, apiKey: KEY }).reranking("fake"));
  },
  "npm `@ai-sdk/togetherai`": async (baseURL) => {
    const { createTogetherAI } = await load("@ai-sdk/togetherai");
    return aiSdk(createTogetherAI({ baseURL, apiKey: KEY }).reranking("fake"));
  },
  "npm `voyage-ai-provider`": async (baseURL) => {
    const { createVoyage } = await load("voyage-ai-provider");
    return aiSdk(createVoyage({ baseURL, apiKey: KEY }).reranking("fake"));
  },
  "npm `cohere-ai` (v1)": async (environment) => {
    const { CohereClient } = await load("cohere-ai");
    const client = new CohereClient({ token: KEY, environment });
    return scored((await client.rerank({ model: "fake", query, documents, topN: 3 })).results);
  },
  "npm `cohere-ai` (v2)": async (environment) => {
    const { CohereClientV2 } = await load("cohere-ai");
    const client = new CohereClientV2({ token: KEY, environment });
    return scored((await client.rerank({ model: "fake", query, documents, topN: 3 })).results);
  },
  "npm `together-ai`": async (baseURL) => {
    const { default: Together } = await load("together-ai");
    const client = new Together({ apiKey: KEY, baseURL });
    const answer = await client.rerank.create({ model: "fake", query, documents, top_n: 3 });
    return scored(answer.results);
  },
  "npm `voyageai`": async (environment) => {
    const { VoyageAIClient } = await load("voyageai");
    const client = new VoyageAIClient({ apiKey: KEY, environment });
    return scored((await client.rerank({ model: "fake", query, documents })).data);
  },
  "npm `@langchain/cohere`": async (environment) => {
    const { CohereRerank } = await load("@langchain/cohere");
    const { CohereClient } = await load("cohere-ai");
    const client = new CohereClient({ token: KEY, environment });
    const found = documents.map((pageContent) => ({ pageContent, metadata: {} }));
    const reranker = new CohereRerank({ client, apiKey: KEY, model: "fake", topN: 3 });
    return scored(await reranker.rerank(found, query, { topN: 3, model: "fake" }));
  },
  "npm `@mixedbread/sdk`": async (baseURL) => {
    const { Mixedbread } = await load("@mixedbread/sdk");
    const client = new Mixedbread({ apiKey: KEY, baseURL });
    const answer = await client.rerank({ model: "fake", query, input: documents, top_k: 3 });
    return answer.data.map((r) => [r.index, r.score]);
  },
  "npm `openai`": async (baseURL) => {
    const { default: OpenAI } = await load("openai");
    const client = new OpenAI({ apiKey: KEY, baseURL });
    const { id } = await client.models.retrieve("fake");
    const body = { model: id, query, documents, top_n: 3 };
    return scored((await client.post("/rerank", { body })).results);
  },
};

const [name, url] = process.argv.slice(2);
console.log(JSON.stringify(await CLIENTS[name](url)));
process.exit(0);
