// A call with the agent through the browser's microphone.
//
// This file is loaded twice: by the page, and by `audioWorklet.addModule` in the scope of the
// audio thread, where it only defines the two processors.
"use strict";

/** Samples a second on the socket: 16 bit, little-endian (as in every browser's arrays), mono. */
const RATE = 24_000;
/** 20 ms. */
const FRAME = 480;

// ---- On the audio thread ----

/** Playback begins with this much at hand, so that a late message makes no hole. */
const CUSHION_SECONDS = 0.06;
/** A short piece after which nothing comes for this long is played all the same. */
const PATIENCE_SECONDS = 0.04;
const LONGEST_PLAYBACK_SECONDS = 60;
const REPORT_SECONDS = 0.05;
/** What has been handed over is heard a little later. */
const DEVICE_SECONDS = 0.2;
/** A loudness (root mean square) that is no silence, and how long a pause ends what was said. */
const AUDIBLE = 0.01;
const PAUSE_SECONDS = 0.3;

/** Changes the sample rate by linear interpolation, one sample behind. Equal rates pass as is. */
class Resampler {
  constructor(from, to) {
    this.step = from / to;
    this.phase = 0;
    this.last = 0;
  }

  push(sample, emit) {
    for (; this.phase < 1; this.phase += this.step) {
      emit(this.last + (sample - this.last) * this.phase);
    }
    this.phase -= 1;
    this.last = sample;
  }
}

function defineProcessors() {
  /** Posts the microphone's frames, each with its loudness and time. */
  class Microphone extends AudioWorkletProcessor {
    constructor() {
      super();
      this.resampler = new Resampler(sampleRate, RATE);
      this.take = this.take.bind(this);
      this.begin();
    }

    begin() {
      this.frame = new Int16Array(FRAME);
      this.filled = 0;
      this.energy = 0;
    }

    process([[channel]]) {
      for (const sample of channel ?? []) this.resampler.push(sample, this.take);
      return true;
    }

    take(sample) {
      this.energy += sample * sample;
      this.frame[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32_767;
      if (this.filled < FRAME) return;
      const { buffer } = this.frame;
      const level = Math.sqrt(this.energy / FRAME);
      this.port.postMessage({ frame: buffer, level, at: currentTime }, [buffer]);
      this.begin();
    }
  }

  /**
   * Plays what the agent says, in order, from a ring. Takes buffers of samples, "stop" (forget
   * what is not played yet) and "finish" (say when all is played); posts reports, and the time
   * at which the agent becomes audible after a pause.
   */
  class Player extends AudioWorkletProcessor {
    constructor() {
      super();
      this.ring = new Float32Array(LONGEST_PLAYBACK_SECONDS * sampleRate);
      this.fades = new Float32Array(128);
      this.put = this.put.bind(this);
      this.played = 0;
      this.quiet = Infinity;
      this.unreported = 0;
      this.energy = 0;
      this.finishing = false;
      this.remaining = DEVICE_SECONDS * sampleRate;
      this.clear();
      this.port.onmessage = ({ data }) => {
        if (data === "stop") this.stop();
        else if (data === "finish") this.finishing = true;
        else this.write(data);
      };
    }

    clear() {
      this.resampler = new Resampler(RATE, sampleRate);
      this.read = 0;
      this.length = 0;
      this.waited = 0;
      this.playing = false;
      this.fading = 0;
    }

    write(buffer) {
      for (const sample of new Int16Array(buffer, 0, buffer.byteLength >> 1)) {
        this.resampler.push(sample / 32_768, this.put);
      }
      this.waited = 0;
    }

    /** What does not fit is dropped, so that what is heard stays in order. */
    put(sample) {
      if (this.length === this.ring.length) return;
      this.ring[(this.read + this.length) % this.ring.length] = sample;
      this.length += 1;
    }

    /** The one quantum that is still heard fades, because a cut in a voice is a click. */
    stop() {
      const heard = this.playing ? this.take(this.fades) : 0;
      this.clear();
      this.fading = heard;
    }

    take(out) {
      const count = Math.min(this.length, out.length);
      for (let i = 0; i < count; i++) out[i] = this.ring[(this.read + i) % this.ring.length];
      this.read = (this.read + count) % this.ring.length;
      this.length -= count;
      return count;
    }

    process(_, [[out]]) {
      const count = this.fill(out);
      this.played += count;
      this.report(out);
      if (!this.finishing || this.length > 0) return true;
      this.remaining -= out.length;
      if (this.remaining <= 0) this.port.postMessage({ finished: true });
      return this.remaining > 0;
    }

    fill(out) {
      if (this.fading > 0) {
        const count = Math.min(this.fading, out.length);
        for (let i = 0; i < count; i++) out[i] = this.fades[i] * (1 - i / count);
        this.fading = 0;
        return count;
      }
      this.waited += out.length;
      const enough = this.length >= CUSHION_SECONDS * sampleRate;
      const late = this.waited >= PATIENCE_SECONDS * sampleRate;
      if (this.length > 0 && (enough || late)) this.playing = true;
      if (!this.playing) return 0;
      const count = this.take(out);
      if (count < out.length) this.playing = false;
      return count;
    }

    report(out) {
      let energy = 0;
      for (const sample of out) energy += sample * sample;
      if (Math.sqrt(energy / out.length) > AUDIBLE) {
        if (this.quiet >= PAUSE_SECONDS * sampleRate) this.port.postMessage({ began: currentTime });
        this.quiet = 0;
      } else {
        this.quiet += out.length;
      }
      this.energy += energy;
      this.unreported += out.length;
      if (this.unreported < REPORT_SECONDS * sampleRate) return;
      this.port.postMessage({
        playedSeconds: this.played / sampleRate,
        bufferedMs: Math.round((this.length / sampleRate) * 1000),
        level: Math.sqrt(this.energy / this.unreported),
      });
      this.unreported = 0;
      this.energy = 0;
    }
  }

  registerProcessor("microphone", Microphone);
  registerProcessor("player", Player);
}

// ---- A call ----

const PING_MS = 1000;
/** A server that says nothing for this long, pongs included, is lost. */
const SILENCE_MS = 10_000;
/** From the socket's beginning until the server says what becomes of the call. */
const CONNECT_MS = 20_000;
/** How long the server's last words may take, before and after its socket closes. */
const FAREWELL_MS = 30_000;
/** Audio on its way to the server: 200 ms in the socket and 800 ms here, where it can be dropped. */
const SOCKET_BYTES = 10 * FRAME * 2;
const WAITING_FRAMES = 40;

/** Estimates how long the agent takes to answer, from loudness alone. Times are in seconds. */
class AnswerTime {
  constructor() {
    this.floor = AUDIBLE;
    this.voiced = 0;
    this.last = 0;
  }

  /** Takes a frame of the caller's. The noise floor falls quickly and rises slowly. */
  heard(level, at) {
    this.floor += (level - this.floor) * (level < this.floor ? 0.2 : 0.002);
    if (level <= Math.max(AUDIBLE, 3 * this.floor)) return;
    this.voiced += 1;
    this.last = at;
  }

  /** Returns the milliseconds since the caller's last word, or null where it is no answer. */
  answered(at) {
    const spoke = this.voiced >= 5; // A shorter sound is a cough or a click.
    if (!spoke || at - this.last < 2 * (FRAME / RATE)) return null;
    this.voiced = 0;
    return Math.round((at - this.last) * 1000);
  }
}

/** The microphone, the socket and the playback of one call. It ends once. */
class Call {
  state = "asking";
  reason = null;
  language = null;
  levels = { caller: 0, agent: 0 };
  playedSeconds = 0;
  bufferedMs = 0;
  roundTripMs = null;
  answerMs = null;
  framesSent = 0;
  framesDropped = 0;
  sampleRate = null;
  over = false;
  #changed;
  #said;
  #answer = new AnswerTime();
  #waiting = [];
  #stream = null;
  #context = null;
  #player = null;
  #socket = null;
  #ticking = null;
  #farewell = null;
  #began = 0;
  #heard = 0;

  /** `changed` is told of a new state, `said` of a line of the transcript. */
  constructor(changed, said) {
    this.#changed = changed;
    this.#said = said;
  }

  /** Does not return before the call has a socket, or has ended for want of a microphone. */
  async start(url) {
    if (!navigator.mediaDevices) return this.#end("failed", "insecure");
    try {
      const sound = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { ...sound, channelCount: 1 } });
      this.#stream = stream;
      if (this.over) return this.#mute(); // The caller hung up while the browser was asking.
      for (const track of stream.getTracks()) {
        track.onended = () => this.#end("failed", "microphoneLost");
      }
      this.#set("connecting", null);
      await this.#listen(RATE).catch(() => this.#listen(undefined));
      if (this.over) return this.#silence();
      this.#connect(url);
    } catch (error) {
      this.#end("failed", MICROPHONE_ERRORS[error.name] ?? "unsupported");
    }
  }

  /** Ends at once, and with it what is still being played. */
  hangUp() {
    this.#end("ended", "hungUp");
    this.#silence();
  }

  /** Some browsers take no microphone at any other rate than their device's. */
  async #listen(rate) {
    const context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule("/web/web.js");
      const mono = { outputChannelCount: [1], channelCount: 1, channelCountMode: "explicit" };
      const microphone = new AudioWorkletNode(context, "microphone", mono);
      const player = new AudioWorkletNode(context, "player", mono);
      microphone.port.onmessage = ({ data }) => this.#spoke(data);
      player.port.onmessage = ({ data }) => this.#reported(data);
      context.createMediaStreamSource(this.#stream).connect(microphone);
      // Silent, but a node that leads nowhere need not be run.
      microphone.connect(context.destination);
      player.connect(context.destination);
      context.resume();
      this.#context = context;
      this.#player = player.port;
      this.sampleRate = context.sampleRate;
    } catch (error) {
      context.close();
      throw error;
    }
  }

  #connect(url) {
    this.#began = this.#heard = performance.now();
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code }) => this.#closed(code);
    this.#ticking = setInterval(() => this.#tick(), PING_MS);
  }

  #tick() {
    const now = performance.now();
    const undecided = this.state === "connecting" && now - this.#began > CONNECT_MS;
    if (undecided || now - this.#heard > SILENCE_MS) {
      return this.#end("failed", this.state === "connecting" ? "unreachable" : "lost");
    }
    // The id is the time, so that its pong tells the round trip by itself.
    if (this.#isOpen()) this.#socket.send(JSON.stringify({ Kind: "Ping", Id: Math.round(now) }));
  }

  /** Sends the caller's audio. What the network does not take in time is dropped, oldest first. */
  #spoke({ frame, level, at }) {
    if (this.over) return;
    this.levels.caller = level;
    if (this.state === "connected") this.#answer.heard(level, at);
    this.#waiting.push(frame);
    if (this.#waiting.length > WAITING_FRAMES) {
      this.#waiting.shift();
      this.framesDropped += 1;
    }
    while (this.#isOpen() && this.#waiting.length > 0 && this.#socket.bufferedAmount < SOCKET_BYTES) {
      this.#socket.send(this.#waiting.shift());
      this.framesSent += 1;
    }
  }

  #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #received(data) {
    if (this.over) return;
    this.#heard = performance.now();
    if (typeof data !== "string") return this.#player.postMessage(data, [data]);
    const message = parse(data);
    switch (message?.Kind) {
      case "StopAudio":
        return this.#player.postMessage("stop");
      case "Transcription":
        return this.#said(message.Speaker === "caller" ? "caller" : "agent", String(message.Text ?? ""));
      case "State":
        return this.#decided(message);
      case "Pong":
        if (Number.isFinite(message.Id)) {
          this.roundTripMs = Math.max(0, Math.round(this.#heard - message.Id));
        }
    }
  }

  #decided({ State: state, Reason: reason, Language: language }) {
    if (typeof language === "string") this.language = language;
    if (state === "connected") return this.#set(state, null);
    if (state !== "busy" && state !== "ended") return;
    // What the server still says is heard; nobody listens to the caller any more.
    this.#mute();
    this.#set(state, state === "ended" && typeof reason === "string" ? reason : null);
    this.#farewell ??= setTimeout(() => this.#end(this.state, this.reason), FAREWELL_MS);
  }

  #reported({ began, finished, playedSeconds, bufferedMs, level }) {
    if (this.#context === null) return; // On its way when the playback was ended.
    if (finished) return this.#silence();
    if (began !== undefined) {
      this.answerMs = this.#answer.answered(began) ?? this.answerMs;
      return;
    }
    this.playedSeconds = playedSeconds;
    this.bufferedMs = bufferedMs;
    this.levels.agent = level;
  }

  #closed(code) {
    if (this.state === "busy" || this.state === "ended") return this.#end(this.state, this.reason);
    const [state, reason] = CLOSE_CODES[code] ?? ["failed", this.state === "connecting" ? "unreachable" : "lost"];
    this.#end(state, reason);
  }

  #end(state, reason) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.#ticking);
    clearTimeout(this.#farewell);
    this.#mute();
    this.#socket?.close(1000);
    this.#waiting.length = 0;
    this.#set(state, reason);
    // The agent's last words may still wait to be played.
    this.#player?.postMessage("finish");
    this.#farewell = setTimeout(() => this.#silence(), FAREWELL_MS);
  }

  /** Gives the microphone back. */
  #mute() {
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.levels.caller = 0;
  }

  #silence() {
    clearTimeout(this.#farewell);
    this.#context?.close();
    this.#context = null;
    this.levels.agent = 0;
    this.bufferedMs = 0;
  }

  #set(state, reason) {
    this.state = state;
    this.reason = reason;
    this.#changed();
  }
}

const MICROPHONE_ERRORS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "noMicrophone",
  NotReadableError: "microphoneLost",
  AbortError: "microphoneLost",
};

/** What a close without an earlier State message means. */
const CLOSE_CODES = {
  1000: ["ended", null],
  1001: ["failed", "agentGone"],
  1013: ["failed", "draining"],
  4401: ["failed", "refused"],
  4404: ["failed", "unknown"],
  4429: ["busy", null],
};

/** The gateway's end reasons in a caller's words; the first that matches. */
const END_REASONS = [
  [/^(too_long|agent_expired)$/, "tooLong"],
  [/^(caller_hung_up|carrier_ended|agent_hung_up|transferred)$/, "ended"],
  [/^agent_/, "agentGone"],
  [/^(drained|stopped)$/, "draining"],
  [/^(carrier_lost|carrier_unresponsive|carrier_blocked|media_stalled|no_media)$/, "lost"],
];

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // Ignored like any message of an unknown kind.
  }
}

// ---- The page ----

const TEXTS = {
  en: {
    title: "Talk with the voice agent",
    start: "Start the call",
    hangUp: "Hang up",
    caller: "You",
    agent: "Agent",
    transcript: "Transcript",
    nothing: "What is said appears here.",
    roundTrip: "Round trip",
    answerTime: "Answer time",
    idle: "Ready when you are.",
    asking: "Waiting for the microphone. Please allow this page to use it.",
    connecting: "Connecting…",
    connected: "Connected. Go ahead and speak.",
    busy: "Nobody is free right now. Please try again later.",
    ended: "The call has ended.",
    endedBecause: "The call has ended: {reason}",
    hungUp: "You hung up.",
    tooLong: "The call has reached its longest duration.",
    agentGone: "The agent is gone. Please try again.",
    draining: "The service is being updated. Please try again in a moment.",
    refused: "This link has expired or was already used. Please ask for a new one.",
    unknown: "There is nobody to call by this name. Please check the link.",
    lost: "The connection was lost. Please check your network and try again.",
    unreachable: "The service does not answer. Please try again later.",
    denied: "The microphone is blocked. Allow it in this site's settings, next to the address, then try again.",
    noMicrophone: "No microphone was found. Plug one in and try again.",
    microphoneLost: "The microphone is gone, or another program is using it. Please check it and try again.",
    insecure: "Browsers give the microphone to secure pages only. Please open this page with https.",
    unsupported: "This browser cannot make voice calls. Please try a current one.",
  },
  he: {
    title: "שיחה עם הנציג הקולי",
    start: "התחלת שיחה",
    hangUp: "ניתוק",
    caller: "אני",
    agent: "נציג",
    transcript: "תמליל השיחה",
    nothing: "הנאמר בשיחה יופיע כאן.",
    roundTrip: "זמן הלוך ושוב",
    answerTime: "זמן תגובה",
    idle: "אפשר להתחיל.",
    asking: "ממתין למיקרופון. יש לאשר לדף להשתמש בו.",
    connecting: "מתחבר…",
    connected: "מחובר. אפשר לדבר.",
    busy: "אין כרגע נציג פנוי. אפשר לנסות שוב מאוחר יותר.",
    ended: "השיחה הסתיימה.",
    endedBecause: "השיחה הסתיימה: {reason}",
    hungUp: "ניתקת את השיחה.",
    tooLong: "השיחה הגיעה למשך המרבי.",
    agentGone: "הקשר עם הנציג נותק. אפשר לנסות שוב.",
    draining: "השירות מתעדכן. אפשר לנסות שוב בעוד רגע.",
    refused: "תוקף הקישור פג או שכבר נעשה בו שימוש. יש לבקש קישור חדש.",
    unknown: "אין למי להתקשר בשם הזה. יש לבדוק את הקישור.",
    lost: "החיבור נותק. יש לבדוק את הרשת ולנסות שוב.",
    unreachable: "השירות אינו עונה. אפשר לנסות שוב מאוחר יותר.",
    denied: "המיקרופון חסום. יש לאשר אותו בהגדרות האתר, ליד שורת הכתובת, ולנסות שוב.",
    noMicrophone: "לא נמצא מיקרופון. יש לחבר מיקרופון ולנסות שוב.",
    microphoneLost: "המיקרופון התנתק או נמצא בשימוש של תוכנה אחרת. יש לבדוק אותו ולנסות שוב.",
    insecure: "דפדפנים מאפשרים מיקרופון רק בדף מאובטח. יש לפתוח את הדף בכתובת https.",
    unsupported: "הדפדפן הזה אינו תומך בשיחות קוליות. כדאי לנסות דפדפן עדכני.",
  },
};

const PAINT_MS = 100;
const LONGEST_TRANSCRIPT = 500;

function openPage() {
  const query = new URLSearchParams(location.search);
  const element = (id) => document.getElementById(id);
  const transcript = element("transcript");
  let call = null;
  let painting = null;
  let texts = null;

  function speak(language) {
    const known = /^(he|iw)\b/i.test(language) ? "he" : "en";
    if (texts === TEXTS[known]) return;
    texts = TEXTS[known];
    document.documentElement.lang = known;
    document.documentElement.dir = known === "he" ? "rtl" : "ltr";
    document.title = texts.title;
    for (const labelled of document.querySelectorAll("[data-text]")) {
      labelled.textContent = texts[labelled.dataset.text];
    }
  }

  function render() {
    const live = call !== null && !call.over;
    const does = live ? "hangUp" : "start";
    element("button").dataset.does = does;
    element("button").textContent = texts[does];
    element("status").dataset.state = call?.state ?? "idle";
    const words = wording(call?.state ?? "idle", call?.reason);
    // Saying the same again would make a screen reader repeat it.
    if (element("words").textContent !== words) element("words").textContent = words;
  }

  function wording(state, reason) {
    if (!reason) return texts[state];
    const key = END_REASONS.find(([pattern]) => pattern.test(reason))?.[1] ?? reason;
    return Object.hasOwn(texts, key) ? texts[key] : texts.endedBecause.replace("{reason}", () => reason);
  }

  function paint() {
    meter(element("caller-level"), call.levels.caller);
    meter(element("agent-level"), call.levels.agent);
    element("round-trip").textContent = milliseconds(call.roundTripMs);
    element("answer-time").textContent = milliseconds(call.answerMs);
  }

  function milliseconds(value) {
    if (value === null) return "–";
    const unit = { style: "unit", unit: "millisecond" };
    return new Intl.NumberFormat(document.documentElement.lang, unit).format(value);
  }

  function say(speaker, text) {
    if (text.trim() === "") return;
    element("nothing").hidden = true;
    const followed = transcript.scrollHeight - transcript.scrollTop - transcript.clientHeight < 40;
    const [entry, name, line] = ["div", "b", "p"].map((tag) => document.createElement(tag));
    entry.className = `said ${speaker}`;
    name.dataset.text = speaker;
    name.textContent = texts[speaker];
    if (call.language) line.lang = call.language;
    line.textContent = text;
    entry.append(name, line);
    transcript.append(entry);
    const entries = transcript.getElementsByClassName("said");
    if (entries.length > LONGEST_TRANSCRIPT) entries[0].remove();
    // Whoever has scrolled back to read is left there.
    if (followed) transcript.scrollTop = transcript.scrollHeight;
  }

  function start() {
    call?.hangUp();
    for (const entry of transcript.querySelectorAll(".said")) entry.remove();
    element("nothing").hidden = false;
    call = new Call(() => {
      if (call.language) speak(call.language);
      render();
    }, say);
    render();
    painting ??= setInterval(paint, PAINT_MS);
    call.start(socketUrl(query));
  }

  element("button").addEventListener("click", () => (call && !call.over ? call.hangUp() : start()));
  addEventListener("pagehide", () => call?.hangUp());
  speak(query.get("lang") ?? navigator.language);
  render();
  Object.defineProperty(window, "callgate", { value: observed(() => call) });
}

function socketUrl(query) {
  const url = new URL("/web/ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  for (const name of ["campaign", "token"]) {
    if (query.has(name)) url.searchParams.set(name, query.get(name));
  }
  return url.href;
}

/** Shows a loudness on a scale of decibels, from -60 to full. */
function meter(element, level) {
  const percent = Math.round(Math.max(0, Math.min(100, 100 + (20 * Math.log10(level)) / 0.6)));
  element.setAttribute("aria-valuenow", String(percent));
  element.firstElementChild.style.setProperty("--level", String(percent));
}

/** What tests look at: a copy of the call's figures at each look. */
function observed(current) {
  const names = ["reason", "language", "playedSeconds", "bufferedMs", "roundTripMs", "answerMs"];
  names.push("framesSent", "framesDropped", "sampleRate");
  const view = {
    get state() {
      return current()?.state ?? "idle";
    },
    get levels() {
      return { caller: 0, agent: 0, ...current()?.levels };
    },
  };
  for (const name of names) {
    Object.defineProperty(view, name, { enumerable: true, get: () => current()?.[name] ?? null });
  }
  return Object.freeze(view);
}

if (typeof AudioWorkletProcessor === "undefined") openPage();
else defineProcessors();
