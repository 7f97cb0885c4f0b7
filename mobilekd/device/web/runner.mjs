// mkdrun's twin in a page: it takes mkdrun's words and answers with mkdrun's line (docs/devices.md). Files are named
// without a folder and come from the server that the page came from, which gives one command after the other.

const PROTOCOL = 1;
const EXIT = { usage: 2, dlopen: 3, load: 4, run: 5, io: 6 };
const TYPES = { float32: Float32Array, int8: Int8Array };
// The clock is read once this many of its steps have passed, so that one step is at most 1 % of what is told. Inferences
// that are faster share a reading, and each is told their mean.
const LEAST_STEPS = 100;

const stdout = []; // the runtime prints its profile there
const stderr = [];
console.log = (...words) => stdout.push(words.map(String).join(" "));
for (const name of ["warn", "error"]) {
  console[name] = (...words) => stderr.push(words.map(String).join(" "));
}
addEventListener("unhandledrejection", (event) => stderr.push(String(event.reason)));
addEventListener("error", (event) => stderr.push(event.message));

class Refusal extends Error {
  constructor(stage, cause) {
    super(cause instanceof Error ? cause.message : String(cause));
    this.stage = stage;
  }
}

// Returns the smallest step that performance.now() was seen to make, in ms.
function clockStep() {
  let least = Infinity;
  const until = performance.now() + 20;
  for (let last = performance.now(); last < until; ) {
    const now = performance.now();
    if (now > last) least = Math.min(least, now - last);
    last = now;
  }
  return least;
}

// A module with one function that gives a v128 constant: valid only where 128-bit SIMD is.
function hasSimd() {
  const head = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  const type = [1, 5, 1, 0x60, 0, 1, 0x7b];
  const code = [0x0a, 0x16, 1, 0x14, 0, 0xfd, 0x0c, ...new Array(16).fill(0), 0x0b];
  return WebAssembly.validate(new Uint8Array([...head, ...type, 3, 2, 1, 0, ...code]));
}

function parse(argv) {
  const numbers = { warmup: 0, runs: 0, threads: 1, "time-sample": 0 };
  const job = { in: [], out: [], ...numbers, model: "", backend: "", "profile-out": "" };
  for (let at = 1; at < argv.length; at += 2) {
    const name = argv[at].replace(/^--/, "");
    if (!(name in job) || at + 1 === argv.length) throw new Refusal("usage", `${argv[at]} is not known in a browser`);
    if (Array.isArray(job[name])) job[name].push(argv[at + 1]);
    else job[name] = typeof job[name] === "number" ? Number(argv[at + 1]) : argv[at + 1];
  }
  if (job.backend !== "onnxruntime") throw new Refusal("usage", `no ${job.backend} in a browser`);
  return job;
}

async function read(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Refusal("io", `${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

// An ONNX model of one Identity on one float: the first session compiles the runtime's own code, which is no part of
// loading a model, so that session is of this one.
const IDENTITY = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";

let runtime = null;

async function start(threads) {
  if (runtime !== null) {
    if (runtime.env.wasm.numThreads !== threads) throw new Refusal("usage", "threads are those of the first run");
    return;
  }
  try {
    if (threads > 1 && !crossOriginIsolated) throw new Error("the page is not isolated, so it has no threads");
    const ort = await import("./ort.wasm.min.mjs");
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = new URL(".", location).href;
    ort.env.logLevel = "error";
    const bytes = Uint8Array.from(atob(IDENTITY), (letter) => letter.charCodeAt(0));
    await (await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] })).release();
    runtime = ort;
  } catch (cause) {
    throw new Refusal("dlopen", cause);
  }
}

// Sessions are kept: a block of timed runs does not load its model again.
const loaded = new Map();

async function load(job) {
  await start(job.threads);
  if (loaded.has(job.model) && !job["profile-out"]) return loaded.get(job.model);
  const model = new Uint8Array(await read(job.model));
  const began = performance.now();
  const session = await create(model, job["profile-out"] !== "");
  const found = { session, loadMs: performance.now() - began };
  if (!job["profile-out"]) loaded.set(job.model, found);
  return found;
}

async function create(model, isProfiled) {
  try {
    return await runtime.InferenceSession.create(model, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      enableProfiling: isProfiled,
    });
  } catch (cause) {
    throw new Refusal("load", cause);
  }
}

async function open(job) {
  const { session: one, loadMs } = await load(job);
  if (one.inputMetadata.length !== job.in.length) throw new Refusal("usage", "an --in for each input is needed");
  const inputs = [];
  for (const [index, facts] of one.inputMetadata.entries()) {
    const make = TYPES[facts.type];
    if (make === undefined || !facts.shape.every(Number.isInteger)) {
      throw new Refusal("load", `input ${facts.name} is ${facts.type} [${facts.shape}]`);
    }
    const values = new make(await read(job.in[index]));
    const size = facts.shape.reduce((product, side) => product * side, 1);
    if (values.length % size) throw new Refusal("io", `${job.in[index]} does not hold whole inputs`);
    inputs.push({ ...facts, values, size, bytes: size * make.BYTES_PER_ELEMENT });
  }
  return { one, loadMs, inputs };
}

function feeds(inputs, sample) {
  return Object.fromEntries(
    inputs.map(({ name, type, shape, values, size }) => [
      name,
      new runtime.Tensor(type, values.subarray(sample * size, (sample + 1) * size), shape),
    ]),
  );
}

async function send(name, body) {
  const sent = await fetch(name, { method: "PUT", body });
  if (!sent.ok) throw new Refusal("io", `${name}: ${sent.status}`);
}

async function answer(job, { one, inputs }) {
  const samples = inputs[0].values.length / inputs[0].size;
  const parts = one.outputNames.map(() => []);
  for (let sample = 0; sample < samples; sample++) {
    const found = await one.run(feeds(inputs, sample));
    one.outputNames.forEach((name, index) => parts[index].push(found[name].data));
  }
  for (const [index, name] of job.out.entries()) {
    await send(name, new Blob(parts[index]));
  }
  return samples;
}

async function time(job, { one, inputs }) {
  const fed = feeds(inputs, job["time-sample"]);
  let outputs = null;
  for (let run = 0; run < Math.max(1, job.warmup); run++) outputs = await one.run(fed);
  const step = clockStep();
  const latencies = [];
  let inferences = 1;
  while (latencies.length < job.runs) {
    const began = performance.now();
    let count = 0;
    let took = 0;
    while (took < LEAST_STEPS * step) {
      await one.run(fed);
      count += 1;
      took = performance.now() - began;
    }
    latencies.push(...new Array(count).fill(Math.round((took / count) * 1e6)));
    inferences = Math.max(inferences, count);
  }
  latencies.length = job.runs;
  return { outputs, inferences, latencies, step };
}

// Ends a session of its own that was profiled; its profile is all that the runtime printed since.
async function profile(job, { one }) {
  stdout.length = 0;
  one.endProfiling();
  await one.release();
  await send(job["profile-out"], new Blob([stdout.join("\n")]));
}

async function run(argv) {
  const job = parse(argv);
  const model = await open(job);
  try {
    const samples = job.out.length ? await answer(job, model) : 0;
    const timed = await time(job, model);
    if (job["profile-out"]) await profile(job, model);
    return {
      ok: true,
      protocol: PROTOCOL,
      backend: job.backend,
      machine: "wasm32",
      runtime_version: runtime.env.versions.web,
      load_us: Math.round(model.loadMs * 1e3),
      in_bytes: model.inputs.map((input) => input.bytes),
      out_bytes: model.one.outputNames.map((name) => timed.outputs[name].data.byteLength),
      samples,
      threads: job.threads,
      rss_kb: [],
      lat_ns: timed.latencies,
      clock_ns: Math.round(timed.step * 1e6),
      inferences: timed.inferences,
    };
  } catch (cause) {
    throw cause instanceof Refusal ? cause : new Refusal("run", cause);
  }
}

async function completed(argv) {
  stderr.length = 0;
  let code = 0;
  let line;
  try {
    line = await run(argv);
  } catch (cause) {
    const stage = cause instanceof Refusal ? cause.stage : "run";
    code = EXIT[stage];
    line = { ok: false, protocol: PROTOCOL, stage, error: cause.message };
  }
  return { returncode: code, stdout: JSON.stringify(line), stderr: stderr.join("\n") };
}

const post = (name, value) => fetch(name, { method: "POST", body: JSON.stringify(value) });

// The server sees this connection end when the page dies.
globalThis.alive = fetch("alive", { method: "POST" });

await post("hello", {
  user_agent: navigator.userAgent,
  hardware_concurrency: navigator.hardwareConcurrency,
  cross_origin_isolated: crossOriginIsolated,
  wasm_simd: hasSimd(),
  wasm_threads: crossOriginIsolated && typeof SharedArrayBuffer === "function",
  clock_us: clockStep() * 1e3,
});
for (;;) {
  const command = await fetch("next", { method: "POST" });
  if (command.status !== 200) continue;
  const { id, argv } = await command.json();
  await post("done", { id, ...(await completed(argv)) });
}
