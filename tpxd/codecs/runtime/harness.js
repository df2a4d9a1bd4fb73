// What a payload script finds around it, and how it is called. Evaluated first, in a context that serves one call.
//
// `run(job)` takes and returns JSON text. Whatever the script does to the built-in objects afterwards, the names below
// were taken before it began. The script is evaluated as a sloppy script, as the reference hosts do; the epilogue is a
// part of the same text, since `let` and `const` at its top are visible nowhere else.
(function (global) {
  var parse = JSON.parse, stringify = JSON.stringify, evaluate = global.eval, text = String, date = Date;
  var isArray = Array.isArray, now = date.now;
  var call = Function.prototype.call, apply = call.bind(Function.prototype.apply);
  var slice = call.bind(String.prototype.slice);
  var NAMES = ["decodeUplink", "encodeDownlink", "decodeDownlink", "normalizeUplink", "extractPoints",
    "Decoder", "Encoder", "Decode", "Encode"];
  var LINES = 50, LINE = 500;

  function shown(value) {
    try {
      if (value !== null && typeof value === "object" && !(value instanceof Error)) return stringify(value);
      return text(value);
    } catch (_) { return "something that cannot be shown"; }
  }

  function joined(values, between) {
    for (var out = "", i = 0; i < values.length && out.length < 4 * LINE; i++) out += (i ? between : "") + shown(values[i]);
    return out;
  }

  // All texts have one name in a stack; the script's lines are told from the harness's by their numbers.
  var BEFORE = 10000, lead = "\n".repeat(BEFORE);

  function placeOf(error) {
    try {
      var stack = text(error.stack), place = /<input>:(\d{5,}):(\d+)/.exec(stack);
      return place ? [Number(place[1]) - BEFORE, Number(place[2])] : null;
    } catch (_) { return null; }
  }

  function lookUp(found, exports, name) {
    var module = global.module;
    var places = [found.driver, exports.driver, module && module.exports, exports];
    for (var i = 0; i < places.length; i++) {
      var place = places[i];
      if (place !== null && typeof place === "object" && typeof place[name] === "function") {
        return { fn: place[name], self: place };
      }
    }
    return typeof found[name] === "function" ? { fn: found[name], self: undefined } : null;
  }

  function bytesOf(value) {
    if (value === null || value === undefined || typeof value !== "object") return null;
    var length = value.length;
    if (typeof length !== "number" || length > 4096) return null;
    var bytes = [];
    for (var i = 0; i < length; i++) {
      if (typeof value[i] !== "number") return null;
      bytes[i] = value[i] & 255;
    }
    return bytes;
  }

  // Every signature gives the result of TS013: {data | bytes, fPort, errors, warnings}.
  var SIGNATURES = {
    "lora-alliance": function (op, input, get) {
      var fn = get(op);
      if (fn) return fn(input);
      if (op === "decodeUplink" && get("Decoder")) return { data: get("Decoder")(input.bytes, input.fPort) };
      if (op === "decodeUplink" && get("Decode")) return { data: get("Decode")(input.fPort, input.bytes, input.variables) };
      if (op === "encodeDownlink" && get("Encoder")) return { bytes: get("Encoder")(input.data, input.fPort), fPort: input.fPort };
      if (op === "encodeDownlink" && get("Encode")) return { bytes: get("Encode")(input.fPort, input.data, input.variables), fPort: input.fPort };
    },
    actility: function (op, input, get) {
      var fn = get(op);
      if (!fn) return undefined;
      if (op === "encodeDownlink") return fn(input.data);
      return { data: fn(input) };
    },
    ttn: function (op, input, get) {
      if (op === "decodeUplink" && get("Decoder")) return { data: get("Decoder")(input.bytes, input.fPort) };
      if (op === "encodeDownlink" && get("Encoder")) return { bytes: get("Encoder")(input.data, input.fPort), fPort: input.fPort };
      var fn = get(op);
      return fn ? fn(input) : undefined;
    },
    chirpstack: function (op, input, get) {
      if (op === "decodeUplink" && get("Decode")) return { data: get("Decode")(input.fPort, input.bytes, input.variables) };
      if (op === "encodeDownlink" && get("Encode")) return { bytes: get("Encode")(input.fPort, input.data, input.variables), fPort: input.fPort };
      var fn = get(op);
      return fn ? fn(input) : undefined;
    }
  };

  function prepared(input) {
    if (typeof input.recvTime === "string") {
      input.recvTime = new date(input.recvTime);
      input.time = input.recvTime;
    }
    return input;
  }

  return function (jobText, ciphers) {
    var job = parse(jobText), logs = [], dropped = 0, found = {}, exports = {};
    function log() {
      if (logs.length >= LINES) { dropped++; return; }
      logs[logs.length] = slice(joined(arguments, " "), 0, LINE);
    }
    function answer(outcome) {
      if (dropped) logs[LINES] = "… and " + dropped + " more";
      if (logs.length) outcome.logs = logs;
      var result;
      try { result = stringify(outcome); }
      catch (error) { return stringify({ error: "the result is no JSON: " + slice(shown(error), 0, LINE), kind: "result" }); }
      if (result.length > job.most) {
        return stringify({ error: "the result has " + result.length + " characters; at most " + job.most + " are taken", kind: "result" });
      }
      return result;
    }
    global.console = { log: log, info: log, warn: log, error: log, debug: log, trace: log };
    global.exports = exports;
    global.module = { exports: exports };
    if (job.context !== undefined) global.context = job.context;
    global.require = function (name) {
      var known = text(name).replace(/^node:/, "");
      if (known === "buffer" && global.Buffer) return { Buffer: global.Buffer };
      // `os` tells nothing of this machine; it is here since drivers name it without using it.
      if (known === "os") return {};
      if (ciphers && ciphers[known]) return ciphers[known];
      throw new Error("require(\"" + text(name) + "\"): only buffer and crypto are here");
    };
    var take = "__tpxd" + now();
    global[take] = function (values) { found = values; };
    var lines = ["driver: typeof driver === 'undefined' ? undefined : driver"];
    for (var i = 0; i < NAMES.length; i++) {
      lines[lines.length] = NAMES[i] + ": typeof " + NAMES[i] + " === 'undefined' ? undefined : " + NAMES[i];
    }
    try {
      evaluate(lead + job.source + "\n;" + take + "({" + lines.join(", ") + "});");
    } catch (error) {
      return answer({ error: shown(error), kind: "load", place: placeOf(error) });
    }
    delete global[take];
    function get(name) {
      var hit = lookUp(found, exports, name);
      return hit && function () { return apply(hit.fn, hit.self, arguments); };
    }
    if (job.op === "names") {
      var there = [];
      for (i = 0; i < NAMES.length; i++) if (get(NAMES[i])) there[there.length] = NAMES[i];
      return answer({ result: there });
    }
    var result;
    try {
      if (job.op === "extractPoints") {
        var points = get("extractPoints");
        result = points ? { data: points(prepared(job.input)) } : undefined;
      } else {
        result = SIGNATURES[job.signature](job.op, prepared(job.input), get);
      }
      if (result === undefined) return answer({ error: "the script has no " + job.op, kind: "missing" });
      if (result === null || typeof result !== "object" || isArray(result)) {
        return answer({ error: job.op + " returned " + (result === null ? "null" : isArray(result) ? "a list" : "a " + typeof result) + ", not an object", kind: "result" });
      }
      var errors = result.errors;
      if (isArray(errors) && errors.length) {
        return answer({ error: slice(joined(errors, "; "), 0, 4 * LINE), kind: "told", result: result });
      }
      if (job.op === "encodeDownlink") {
        var bytes = bytesOf(result.bytes);
        if (!bytes) return answer({ error: "encodeDownlink returned no list of bytes", kind: "result" });
        result = { bytes: bytes, fPort: result.fPort, warnings: result.warnings };
      } else if (result.data === undefined || result.data === null || typeof result.data !== "object") {
        return answer({ error: job.op + " returned no data", kind: "result" });
      }
    } catch (error) {
      return answer({ error: slice(shown(error), 0, 4 * LINE), kind: "threw", place: placeOf(error) });
    }
    return answer({ result: result, context: global.context });
  };
})(globalThis)
