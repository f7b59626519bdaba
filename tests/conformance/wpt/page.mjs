// One file of web-platform-tests (webaudio/) without a browser: its scripts run in Node, and the interfaces that they use
// are msrecd's, in the process that started this one (objects.py). Results go to standard output, as JSON.
//
//   node page.mjs ROOT webaudio/the-audio-api/…/some-test.html QUESTIONS ANSWERS EVENTS     (descriptors)
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import vm from 'node:vm';

const [root, name, ...descriptors] = process.argv.slice(2);
const [questions, answers, events] = descriptors.map(Number);
const file = path.join(root, name);

// --- asking ----------------------------------------------------------------------------------------------------------

let rest = Buffer.alloc(0);
function readLine() {
  const chunks = [rest];
  for (;;) {
    const last = chunks[chunks.length - 1];
    const end = last.indexOf(10);
    if (end >= 0) {
      const all = Buffer.concat(chunks);
      const at = all.length - last.length + end;
      rest = all.subarray(at + 1);
      return all.subarray(0, at).toString();
    }
    const more = Buffer.alloc(1 << 16);
    const size = fs.readSync(answers, more);
    if (!size) throw new Error('msrecd has gone');
    chunks.push(more.subarray(0, size));
  }
}

const objects = new Map();  // by number: what stands for it here
const promises = new Map();  // by number: [resolve, reject]
const buffers = new Set();  // AudioBuffers whose arrays the page has
const handlers = new Map();  // by object's number: Map of event type to [handler attribute, listeners]

function ask(question) {
  const text = Buffer.from(JSON.stringify(question) + '\n');
  for (let at = 0; at < text.length;) at += fs.writeSync(questions, text, at);
  const answer = JSON.parse(readLine());
  if (answer.error) throw failure(answer.error);
  return answer;
}

function failure([kind, message]) {
  if (kind === 'TypeError') return new page.TypeError(message);
  if (kind === 'RangeError') return new page.RangeError(message);
  if (kind === 'Error') return new page.Error(message);
  return new page.DOMException(message, kind);
}

const arrays = {
  Float32Array, Float64Array, Uint8Array, Int8Array, Uint16Array, Int16Array, Uint32Array, Int32Array, Uint8ClampedArray,
};

function packed(value) {
  if (value === undefined) return {u: 1};
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') return Number.isFinite(value) ? value : {n: String(value)};
  if (typeof value === 'function') return value[number] ? {o: value[number]} : {f: 1};
  if (value[number]) return {o: value[number]};
  if (ArrayBuffer.isView(value) || Object.prototype.toString.call(value).match(/(Float|Int|Uint)\d+(Clamped)?Array/)) {
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    return {a: kind, d: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')};
  }
  if (Array.isArray(value) || typeof value[Symbol.iterator] === 'function') return {l: Array.from(value, packed)};
  return {m: Object.fromEntries(Object.entries(value).map(([key, one]) => [key, packed(one)]))};
}

function unpacked(value) {
  if (value === null || typeof value !== 'object') return value;
  if ('u' in value) return undefined;
  if ('n' in value) return Number(value.n);
  if ('o' in value) return standIn(value.o, value.c);
  if ('p' in value) return new page.Promise((...both) => promises.set(value.p, both));
  if ('a' in value) return arrayOf(value);
  if ('l' in value) return page.Array.from(value.l.map(unpacked));
  return Object.fromEntries(Object.entries(value.m).map(([key, one]) => [key, unpacked(one)]));
}

function arrayOf(value) {
  const data = Buffer.from(value.d, 'base64');
  const array = new page[value.a](data.length / arrays[value.a].BYTES_PER_ELEMENT);
  fill(array, value);
  return array;
}

function fill(array, value) {
  Buffer.from(value.d, 'base64').copy(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
}

// --- objects ---------------------------------------------------------------------------------------------------------

const number = Symbol('number'), channels = Symbol('channels');

function flush() {  // what the page has written into the arrays of its buffers
  for (const buffer of buffers) {
    for (const [index, array] of buffer[channels].entries()) {
      if (array) ask({do: 'write', of: buffer[number], channel: index, value: packed(array)});
    }
  }
}

function refresh(buffer) {
  for (const [index, array] of buffer[channels].entries()) {
    if (array) fill(array, ask({do: 'call', of: buffer[number], name: 'getChannelData', args: [index]}).value);
  }
}

function call(target, name, args) {
  if (name === 'startRendering' || name === 'copyFromChannel' || name === 'start') flush();
  if (name === 'getChannelData') {
    const known = target[channels][args[0]];
    if (known) return known;
  }
  if (name === 'copyToChannel') flush();
  const answer = ask({do: 'call', of: target[number], name, args: args.map(packed)});
  for (const [index, value] of Object.entries(answer.filled || {})) fill(args[index], value);
  const value = unpacked(answer.value);
  if (name === 'getChannelData') {
    buffers.add(target);
    target[channels][args[0]] = value;
  }
  if (name === 'copyToChannel') refresh(target);
  return value;
}

function standIn(id, kind) {
  const known = objects.get(id);
  if (known) return known;
  const made = new (page[kind] || page.Object)(taken, id);
  return made;
}

const taken = Symbol('taken');

function define(interfaces) {
  class EventTarget_ {
    addEventListener(type, listener) { listen(this, type)[1].push(listener); }
    removeEventListener(type, listener) {
      const all = listen(this, type)[1];
      if (all.includes(listener)) all.splice(all.indexOf(listener), 1);
    }
  }
  page.EventTarget = EventTarget_;
  for (const one of interfaces) {
    const base = one.base ? page[one.base] : Object;
    const made = {[one.name]: class extends base {
      constructor(...args) {
        if (args[0] === taken || (one.base && page[one.base] !== EventTarget_ && new.target !== made)) {
          super(...args);
          if (this[number] === undefined) adopt(this, args[1]);
          return;
        }
        super(taken, 0);
        if (args.length < one.least) throw new page.TypeError(`${one.name} needs ${one.least} arguments`);
        flush();
        const answer = ask({do: 'new', name: one.name, args: args.map(packed)});
        adopt(this, answer.value.o);
      }
    }}[one.name];
    page[one.name] = made;
    for (const attribute of one.attributes) {
      Object.defineProperty(made.prototype, attribute.name, {
        enumerable: true, configurable: true,
        get() {
          if (attribute.name.startsWith('on')) return listen(this, attribute.name.slice(2))[0];
          return unpacked(ask({do: 'get', of: this[number], name: attribute.name}).value);
        },
        set: attribute.isFixed ? undefined : function (value) {
          if (attribute.name.startsWith('on')) { listen(this, attribute.name.slice(2))[0] = value; return; }
          flush();
          ask({do: 'set', of: this[number], name: attribute.name, value: packed(value)});
        },
      });
    }
    for (const method of one.methods) {
      made.prototype[method.name] = {[method.name](...args) {
        try {
          if (args.length < method.least) throw new page.TypeError(`${method.name} needs ${method.least} arguments`);
          return call(this, method.name, args);
        } catch (error) {
          if (method.isAsync) return page.Promise.reject(error);
          throw error;
        }
      }}[method.name];
    }
  }
}

function adopt(object, id) {
  if (!id) return;
  object[number] = id;
  Object.defineProperty(object, number, {enumerable: false});
  Object.defineProperty(object, channels, {value: [], enumerable: false});
  objects.set(id, object);
}

function listen(object, type) {
  if (!handlers.has(object[number])) handlers.set(object[number], new Map());
  const all = handlers.get(object[number]);
  if (!all.has(type)) {
    all.set(type, [null, []]);
    ask({do: 'listen', of: object[number], type});
  }
  return all.get(type);
}

// --- events and promises ---------------------------------------------------------------------------------------------

const news = new net.Socket({fd: events, readable: true, writable: false});
let begun = '';
news.on('data', (data) => {
  const lines = (begun + data).split('\n');
  begun = lines.pop();
  for (const line of lines) {
    const one = JSON.parse(line);
    if (one.p) {
      const [resolve, reject] = promises.get(one.p);
      promises.delete(one.p);
      if (one.error) reject(failure(one.error)); else resolve(unpacked(one.value));
    } else {
      const target = objects.get(one.of);
      const event = {type: one.type, target, currentTarget: target};
      for (const [key, value] of Object.entries(one.members)) event[key] = unpacked(value);
      const [handler, listeners] = listen(target, one.type);
      if (handler) handler.call(target, event);
      for (const listener of [...listeners]) listener.call(target, event);
    }
  }
});

// --- the page --------------------------------------------------------------------------------------------------------

const page = vm.createContext({
  console: {log() {}, error() {}, warn() {}, debug() {}, info() {}},
  setTimeout, clearTimeout, setInterval, clearInterval, queueMicrotask, performance,
});
vm.runInContext(`
  self = window = globalThis;
  DOMException = class DOMException extends Error {
    constructor(message, name = 'Error') { super(message); this._name = name; }
    get name() { return this._name; }
    get code() { return {IndexSizeError: 1, NotSupportedError: 9, InvalidStateError: 11, SyntaxError: 12,
      InvalidAccessError: 15}[this._name] || 0; }
  };
  location = {search: '', href: 'http://web-platform.test/'};
`, page);
for (const name of ['Object', 'Error', 'TypeError', 'RangeError', 'Promise', 'Array', ...Object.keys(arrays)]) {
  page[name] = vm.runInContext(name, page);
}
define(ask({do: 'describe'}).interfaces);

const results = [];
page.report = (tests, status) => {
  for (const one of tests) {
    results.push({name: one.name, status: ['pass', 'fail', 'timeout', 'notrun', 'precondition'][one.status], message: one.message});
  }
  finish(status.status === 0 ? null : status.message);
};

let isOver = false;
function finish(problem) {
  if (isOver) return;
  isOver = true;
  fs.writeSync(1, JSON.stringify({results, problem: problem || null}));
  process.exit(0);
}
process.on('uncaughtException', (error) => finish(String(error && error.stack || error)));
process.on('unhandledRejection', (error) => finish(String(error && error.stack || error)));
setTimeout(() => finish('it was not over in time'), 60000).unref?.();

function run(text, where) { vm.runInContext(text, page, {filename: where}); }

run(fs.readFileSync(path.join(root, 'resources/testharness.js'), 'utf8'), 'testharness.js');
run('setup({explicit_done: true, explicit_timeout: true}); add_completion_callback(report); allRead = done;', 'report');
const html = fs.readFileSync(file, 'utf8');
for (const [, attributes, text] of html.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)) {
  const source = attributes.match(/src\s*=\s*["']?([^"'\s>]+)/);
  if (source) {
    if (/testharness(report)?\.js/.test(source[1])) continue;
    const at = source[1].startsWith('/') ? path.join(root, source[1]) : path.join(path.dirname(file), source[1]);
    run(fs.readFileSync(at, 'utf8'), path.basename(at));
  } else if (!/layout-test-code-dummy|worklet/.test(attributes)) {
    run(text, path.basename(file));
  }
}
run('if (!window.Audit) allRead();', 'done');  // audit.js says so itself
