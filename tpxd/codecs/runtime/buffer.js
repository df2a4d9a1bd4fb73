// Node's Buffer as far as payload scripts use it; loaded where a script names it. Own code, after Node's documentation.
(function (global) {
  var HEX = "0123456789abcdef";

  function utf8Bytes(text) {
    var out = [], encoded = encodeURIComponent(text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd"));
    for (var i = 0; i < encoded.length; i++) {
      if (encoded[i] === "%") { out.push(parseInt(encoded.substr(i + 1, 2), 16)); i += 2; }
      else out.push(encoded.charCodeAt(i));
    }
    return out;
  }

  function utf8Text(bytes) {
    var out = "", i = 0;
    while (i < bytes.length) {
      var first = bytes[i], more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
      var point = more === 0 ? first : more === 1 ? first & 31 : more === 2 ? first & 15 : first & 7, n = 0;
      while (n < more && (bytes[i + 1 + n] & 0xc0) === 0x80) { point = point << 6 | bytes[i + 1 + n] & 63; n++; }
      var bad = more < 0 || n < more || more === 2 && (point < 0x800 || point >= 0xd800 && point < 0xe000) || more === 3 && (point < 0x10000 || point > 0x10ffff);
      out += bad ? "\ufffd" : String.fromCodePoint(point);
      i += 1 + (bad ? 0 : n);
    }
    return out;
  }

  function bytesOfText(text, encoding) {
    var out = [], i;
    switch (String(encoding || "utf8").toLowerCase()) {
      case "hex":
        for (i = 0; i + 1 < text.length; i += 2) {
          var value = parseInt(text.substr(i, 2), 16);
          if (!/^[0-9a-fA-F]{2}$/.test(text.substr(i, 2))) break;
          out.push(value);
        }
        return out;
      case "base64": case "base64url":
        var clean = text.replace(/-/g, "+").replace(/_/g, "/").replace(/[^A-Za-z0-9+/]/g, "");
        if (clean.length % 4 === 1) clean = clean.slice(0, -1);
        var raw = atob(clean + "===".slice(0, (4 - clean.length % 4) % 4));
        for (i = 0; i < raw.length; i++) out.push(raw.charCodeAt(i));
        return out;
      case "latin1": case "binary": case "ascii":
        for (i = 0; i < text.length; i++) out.push(text.charCodeAt(i) & 255);
        return out;
      case "ucs2": case "ucs-2": case "utf16le": case "utf-16le":
        for (i = 0; i < text.length; i++) out.push(text.charCodeAt(i) & 255, text.charCodeAt(i) >> 8);
        return out;
      case "utf8": case "utf-8":
        return utf8Bytes(text);
      default:
        throw new TypeError("Unknown encoding: " + encoding);
    }
  }

  class Buffer extends Uint8Array {
    static from(value, encodingOrOffset, length) {
      if (typeof value === "string") return filled(bytesOfText(value, encodingOrOffset));
      if (value instanceof ArrayBuffer) return new Buffer(value, encodingOrOffset, length);
      if (value && value.type === "Buffer" && Array.isArray(value.data)) return filled(value.data);
      if (value && typeof value === "object" && typeof value.length === "number") return filled(value);
      throw new TypeError("Buffer.from takes a string, a list, an ArrayBuffer or a Buffer");
    }
    static alloc(size, fill, encoding) {
      var made = new Buffer(size);
      return fill === undefined ? made : made.fill(fill, 0, size, encoding);
    }
    static allocUnsafe(size) { return new Buffer(size); }
    static isBuffer(value) { return value instanceof Buffer; }
    static isEncoding(name) {
      return /^(hex|base64|base64url|latin1|binary|ascii|ucs-?2|utf-?16le|utf-?8)$/i.test(String(name));
    }
    static byteLength(value, encoding) {
      return typeof value === "string" ? bytesOfText(value, encoding).length : value.byteLength;
    }
    static concat(list, total) {
      var size = 0, i, made, at = 0;
      for (i = 0; i < list.length; i++) size += list[i].length;
      made = new Buffer(total === undefined ? size : total);
      for (i = 0; i < list.length && at < made.length; i++) {
        made.set(list[i].subarray ? list[i].subarray(0, made.length - at) : list[i], at);
        at += list[i].length;
      }
      return made;
    }
    static compare(a, b) {
      for (var i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
      return Math.sign(a.length - b.length);
    }
    toString(encoding, start, end) {
      var bytes = this.subarray(start || 0, end === undefined ? this.length : end), out = "", i;
      switch (String(encoding || "utf8").toLowerCase()) {
        case "hex":
          for (i = 0; i < bytes.length; i++) out += HEX[bytes[i] >> 4] + HEX[bytes[i] & 15];
          return out;
        case "base64": case "base64url":
          for (i = 0; i < bytes.length; i++) out += String.fromCharCode(bytes[i]);
          out = btoa(out);
          return String(encoding).toLowerCase() === "base64url" ? out.replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "") : out;
        case "latin1": case "binary":
          for (i = 0; i < bytes.length; i++) out += String.fromCharCode(bytes[i]);
          return out;
        case "ascii":
          for (i = 0; i < bytes.length; i++) out += String.fromCharCode(bytes[i] & 127);
          return out;
        case "ucs2": case "ucs-2": case "utf16le": case "utf-16le":
          for (i = 0; i + 1 < bytes.length; i += 2) out += String.fromCharCode(bytes[i] | bytes[i + 1] << 8);
          return out;
        case "utf8": case "utf-8":
          return utf8Text(bytes);
        default:
          throw new TypeError("Unknown encoding: " + encoding);
      }
    }
    toJSON() { return { type: "Buffer", data: Array.from(this) }; }
    equals(other) { return Buffer.compare(this, other) === 0; }
    compare(other) { return Buffer.compare(this, other); }
    slice(start, end) { return this.subarray(start, end); }
    copy(target, at, start, end) {
      var part = this.subarray(start || 0, end === undefined ? this.length : end).subarray(0, Math.max(0, target.length - (at || 0)));
      target.set(part, at || 0);
      return part.length;
    }
    write(text, offset, length, encoding) {
      if (typeof offset === "string") { encoding = offset; offset = 0; length = undefined; }
      else if (typeof length === "string") { encoding = length; length = undefined; }
      offset = offset || 0;
      var bytes = bytesOfText(text, encoding), count = Math.min(bytes.length, this.length - offset, length === undefined ? Infinity : length);
      for (var i = 0; i < count; i++) this[offset + i] = bytes[i];
      return count;
    }
    fill(value, start, end, encoding) {
      if (typeof value !== "string") return super.fill(value, start, end);
      var bytes = bytesOfText(value, typeof start === "string" ? start : encoding);
      var from = typeof start === "number" ? start : 0, to = typeof end === "number" ? end : this.length;
      for (var i = from; i < to; i++) this[i] = bytes.length ? bytes[(i - from) % bytes.length] : 0;
      return this;
    }
    indexOf(value, from, encoding) {
      if (typeof value === "number") return super.indexOf(value & 255, from);
      var wanted = typeof value === "string" ? bytesOfText(value, encoding) : value;
      for (var i = from || 0; i + wanted.length <= this.length; i++) {
        var n = 0;
        while (n < wanted.length && this[i + n] === wanted[n]) n++;
        if (n === wanted.length) return i;
      }
      return -1;
    }
    includes(value, from, encoding) { return this.indexOf(value, from, encoding) >= 0; }
    swap16() { return swapped(this, 2); }
    swap32() { return swapped(this, 4); }
    swap64() { return swapped(this, 8); }
    readUIntLE(at, size) { for (var v = 0, i = size - 1; i >= 0; i--) v = v * 256 + this[checked(this, at, size) + i]; return v; }
    readUIntBE(at, size) { for (var v = 0, i = 0; i < size; i++) v = v * 256 + this[checked(this, at, size) + i]; return v; }
    readIntLE(at, size) { return signed(this.readUIntLE(at, size), size); }
    readIntBE(at, size) { return signed(this.readUIntBE(at, size), size); }
    writeUIntLE(value, at, size) {
      checked(this, at, size);
      for (var i = 0; i < size; i++) { this[at + i] = value % 256; value = Math.floor(value / 256); }
      return at + size;
    }
    writeUIntBE(value, at, size) {
      checked(this, at, size);
      for (var i = size - 1; i >= 0; i--) { this[at + i] = value % 256; value = Math.floor(value / 256); }
      return at + size;
    }
    writeIntLE(value, at, size) { return this.writeUIntLE(value < 0 ? value + Math.pow(256, size) : value, at, size); }
    writeIntBE(value, at, size) { return this.writeUIntBE(value < 0 ? value + Math.pow(256, size) : value, at, size); }
  }

  function filled(list) {
    var made = new Buffer(list.length);
    for (var i = 0; i < list.length; i++) made[i] = list[i];
    return made;
  }

  function checked(buffer, at, size) {
    if (typeof at !== "number" || at < 0 || at % 1 || at + size > buffer.length) {
      var error = new RangeError("The value of \"offset\" is out of range. It must be >= 0 and <= " + (buffer.length - size) + ". Received " + at);
      error.code = "ERR_OUT_OF_RANGE";
      throw error;
    }
    return at;
  }

  function signed(value, size) {
    var limit = Math.pow(256, size);
    return value >= limit / 2 ? value - limit : value;
  }

  function swapped(buffer, size) {
    if (buffer.length % size) throw new RangeError("Buffer size must be a multiple of " + size * 8 + "-bits");
    for (var i = 0; i < buffer.length; i += size) Array.prototype.reverse.call(buffer.subarray(i, i + size));
    return buffer;
  }

  function access(name, size, kind) {
    function view(buffer, at) { return new DataView(buffer.buffer, buffer.byteOffset + checked(buffer, at === undefined ? 0 : at, size), size); }
    var ends = size === 1 ? [["", true]] : [["LE", true], ["BE", false]];
    ends.forEach(function (end) {
      var get = DataView.prototype["get" + kind], set = DataView.prototype["set" + kind];
      function read(at) { return get.call(view(this, at), 0, end[1]); }
      function write(value, at) { set.call(view(this, at), 0, value, end[1]); return (at || 0) + size; }
      [name, name.replace("UInt", "Uint")].forEach(function (alias) {
        Object.defineProperty(Buffer.prototype, "read" + alias + end[0], { value: read, writable: true, configurable: true });
        Object.defineProperty(Buffer.prototype, "write" + alias + end[0], { value: write, writable: true, configurable: true });
      });
    });
  }
  access("UInt8", 1, "Uint8"); access("Int8", 1, "Int8");
  access("UInt16", 2, "Uint16"); access("Int16", 2, "Int16");
  access("UInt32", 4, "Uint32"); access("Int32", 4, "Int32");
  access("BigUInt64", 8, "BigUint64"); access("BigInt64", 8, "BigInt64");
  access("Float", 4, "Float32"); access("Double", 8, "Float64");
  ["UIntLE", "UIntBE"].forEach(function (name) {
    ["read", "write"].forEach(function (verb) {
      Buffer.prototype[verb + name.replace("UInt", "Uint")] = Buffer.prototype[verb + name];
    });
  });

  // `new Buffer(x)` and `Buffer(x)` are Node's old ways; drivers still use them.
  global.Buffer = new Proxy(Buffer, {
    construct: function (target, given, newTarget) {
      if (given.length && typeof given[0] !== "number" && !(given[0] instanceof ArrayBuffer)) return Buffer.from(given[0], given[1], given[2]);
      return Reflect.construct(target, given, newTarget === global.Buffer ? target : newTarget);
    },
    apply: function (target, self, given) { return typeof given[0] === "number" ? Buffer.alloc(given[0]) : Buffer.from(given[0], given[1], given[2]); }
  });
  Object.defineProperty(Buffer, Symbol.species, { value: Buffer });
})(globalThis);
