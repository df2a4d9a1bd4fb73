// What payload scripts use of Node's crypto: AES with 128 and 256 bits in ECB, CBC, CTR and CCM, and AES-CMAC.
// Sources: FIPS 197; NIST SP 800-38A, 38B (CMAC), 38C (CCM); Node's documentation of Cipher and Decipher. Own code.
(function (global) {
  var Buffer = global.Buffer, SBOX = new Uint8Array(256), INVERSE = new Uint8Array(256);
  (function () {
    for (var p = 1, q = 1; ;) {
      p ^= p << 1 ^ (p & 0x80 ? 0x11b : 0); p &= 255;
      q ^= q << 1; q ^= q << 2; q ^= q << 4; q &= 255;
      if (q & 0x80) q ^= 0x09;
      SBOX[p] = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4) ^ 0x63;
      if (p === 1) break;
    }
    SBOX[0] = 0x63;
    for (var i = 0; i < 256; i++) INVERSE[SBOX[i]] = i;
  })();

  function times(a, b) {
    for (var out = 0; b; b >>= 1) { if (b & 1) out ^= a; a = a << 1 ^ (a & 0x80 ? 0x11b : 0); }
    return out & 255;
  }

  function expand(key) {
    var words = key.length / 4, rounds = words + 6, w = Array.from(key), rcon = 1;
    for (var i = words; i < 4 * (rounds + 1); i++) {
      var t = w.slice(4 * i - 4, 4 * i);
      if (i % words === 0) { t = [SBOX[t[1]] ^ rcon, SBOX[t[2]], SBOX[t[3]], SBOX[t[0]]]; rcon = times(rcon, 2); }
      else if (words > 6 && i % words === 4) t = t.map(function (b) { return SBOX[b]; });
      for (var j = 0; j < 4; j++) w.push(w[4 * (i - words) + j] ^ t[j]);
    }
    return { w: w, rounds: rounds };
  }

  function addRound(state, keys, round) { for (var i = 0; i < 16; i++) state[i] ^= keys.w[16 * round + i]; }

  function encryptBlock(keys, block) {
    var s = Array.from(block), t, i, c;
    addRound(s, keys, 0);
    for (var round = 1; round <= keys.rounds; round++) {
      t = s.slice();
      for (i = 0; i < 16; i++) s[i] = SBOX[t[(i + 4 * (i % 4)) % 16]];
      if (round < keys.rounds) for (c = 0; c < 16; c += 4) {
        t = s.slice(c, c + 4);
        for (i = 0; i < 4; i++) s[c + i] = times(t[i], 2) ^ times(t[(i + 1) % 4], 3) ^ t[(i + 2) % 4] ^ t[(i + 3) % 4];
      }
      addRound(s, keys, round);
    }
    return s;
  }

  function decryptBlock(keys, block) {
    var s = Array.from(block), t, i, c;
    for (var round = keys.rounds; round >= 1; round--) {
      addRound(s, keys, round);
      if (round < keys.rounds) for (c = 0; c < 16; c += 4) {
        t = s.slice(c, c + 4);
        for (i = 0; i < 4; i++) {
          s[c + i] = times(t[i], 14) ^ times(t[(i + 1) % 4], 11) ^ times(t[(i + 2) % 4], 13) ^ times(t[(i + 3) % 4], 9);
        }
      }
      t = s.slice();
      for (i = 0; i < 16; i++) s[(i + 4 * (i % 4)) % 16] = INVERSE[t[i]];
    }
    addRound(s, keys, 0);
    return s;
  }

  function bytes(value, encoding) { return Array.from(typeof value === "string" ? Buffer.from(value, encoding || "utf8") : value); }
  function xor(a, b) { return a.map(function (v, i) { return v ^ b[i]; }); }
  function padded(list) { return list.concat(new Array((16 - list.length % 16) % 16).fill(0)); }
  function increment(counter, width) { for (var i = 15; i > 15 - width && (counter[i] = counter[i] + 1 & 255) === 0; i--); }

  function counterMode(keys, counter, data, width) {
    var out = [];
    for (var i = 0; i < data.length; i += 16) {
      var stream = encryptBlock(keys, counter);
      for (var j = i; j < Math.min(i + 16, data.length); j++) out.push(data[j] ^ stream[j - i]);
      increment(counter, width);
    }
    return out;
  }

  function ccm(keys, nonce, aad, data, tagLength, deciphering) {
    var width = 15 - nonce.length, counter = [width - 1].concat(nonce, new Array(width).fill(0));
    var hide = encryptBlock(keys, counter);
    increment(counter, width);
    var other = counterMode(keys, counter, data, width), plain = deciphering ? other : data;
    var length = [], n = plain.length;
    for (var i = 0; i < width; i++) { length.unshift(n & 255); n = Math.floor(n / 256); }
    var flags = (aad.length ? 64 : 0) + ((tagLength - 2) / 2 << 3) + width - 1;
    var text = [flags].concat(nonce, length);
    if (aad.length) text = text.concat(padded([aad.length >> 8, aad.length & 255].concat(aad)));
    text = text.concat(padded(plain));
    var mac = new Array(16).fill(0);
    for (i = 0; i < text.length; i += 16) mac = encryptBlock(keys, xor(mac, text.slice(i, i + 16)));
    return { data: other, tag: xor(mac, hide).slice(0, tagLength) };
  }

  function coder(name, key, iv, options, deciphering) {
    var found = /^aes-(128|192|256)-(ecb|cbc|ctr|ccm)$/.exec(String(name).toLowerCase());
    if (!found) throw new Error("Unknown cipher: only aes-128, -192 and -256 with ecb, cbc, ctr and ccm are here");
    key = bytes(key);
    if (key.length * 8 !== Number(found[1])) throw new RangeError("Invalid key length");
    var keys = expand(key), mode = found[2], rest = [], state = iv ? bytes(iv) : [], aad = [], tag, made;
    if (mode !== "ecb" && mode !== "ccm" && state.length !== 16) throw new TypeError("Invalid initialization vector");
    if (mode === "ccm" && (state.length < 7 || state.length > 13)) throw new TypeError("Invalid initialization vector");
    var padding = true, tagLength = options && options.authTagLength || 16;

    function blocks(data) {
      var out = [];
      for (var i = 0; i < data.length; i += 16) {
        var block = data.slice(i, i + 16), done;
        if (mode === "ecb") done = deciphering ? decryptBlock(keys, block) : encryptBlock(keys, block);
        else if (deciphering) { done = xor(decryptBlock(keys, block), state); state = block; }
        else { done = encryptBlock(keys, xor(block, state)); state = done; }
        out = out.concat(done);
      }
      return out;
    }
    function given(list, encoding) { var made = Buffer.from(list); return encoding ? made.toString(encoding) : made; }

    return {
      setAAD: function (value) { aad = bytes(value); return this; },
      setAuthTag: function (value) { tag = bytes(value); return this; },
      getAuthTag: function () { return Buffer.from(made); },
      setAutoPadding: function (wanted) { padding = wanted !== false; return this; },
      update: function (data, inputEncoding, outputEncoding) {
        data = bytes(data, inputEncoding);
        if (mode === "ccm") {
          var whole = ccm(keys, state, aad, data, tagLength, deciphering);
          made = whole.tag;
          if (deciphering && (!tag || tag.length !== made.length || tag.some(function (b, i) { return b !== made[i]; }))) {
            throw new Error("Unsupported state or unable to authenticate data");
          }
          return given(whole.data, outputEncoding);
        }
        rest = rest.concat(data);
        if (mode === "ctr") {
          var all = counterMode(keys, state, rest.splice(0, rest.length - rest.length % 16), 16);
          return given(all, outputEncoding);
        }
        var keep = deciphering && padding ? (rest.length % 16 || (rest.length ? 16 : 0)) : rest.length % 16;
        return given(blocks(rest.splice(0, rest.length - keep)), outputEncoding);
      },
      final: function (outputEncoding) {
        var last = rest, out = [];
        rest = [];
        if (mode === "ctr") out = counterMode(keys, state, last, 16);
        else if (mode !== "ccm") {
          if (!deciphering && padding) last = last.concat(new Array(16 - last.length).fill(16 - last.length));
          if (last.length % 16) throw new Error("wrong final block length");
          out = blocks(last);
          if (deciphering && padding) {
            var n = out[out.length - 1];
            if (!n || n > 16 || out.slice(-n).some(function (b) { return b !== n; })) throw new Error("bad decrypt");
            out = out.slice(0, -n);
          }
        }
        return given(out, outputEncoding);
      }
    };
  }

  function doubled(block) {
    var out = block.map(function (b, i) { return (b << 1 | (i < 15 ? block[i + 1] >> 7 : 0)) & 255; });
    if (block[0] & 0x80) out[15] ^= 0x87;
    return out;
  }

  function cmac(key, message, options) {
    var keys = expand(bytes(key, "hex")), data = bytes(message), one = doubled(encryptBlock(keys, new Array(16).fill(0)));
    var count = Math.max(1, Math.ceil(data.length / 16)), last = data.slice(16 * (count - 1));
    last = last.length === 16 ? xor(last, one) : xor(padded(last.concat([0x80])), doubled(one));
    var mac = new Array(16).fill(0);
    for (var i = 0; i < count - 1; i++) mac = encryptBlock(keys, xor(mac, data.slice(16 * i, 16 * i + 16)));
    var made = Buffer.from(encryptBlock(keys, xor(mac, last)));
    return options && options.returnAsBuffer ? made : made.toString("hex");
  }

  return {
    crypto: {
      createCipheriv: function (name, key, iv, options) { return coder(name, key, iv, options, false); },
      createDecipheriv: function (name, key, iv, options) { return coder(name, key, iv, options, true); }
    },
    "node-aes-cmac": { aesCmac: cmac }
  };
})(globalThis)
