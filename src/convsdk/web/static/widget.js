/** The chat widget, whole: texts, styles, connection, state, view, and the page's `convsdk(...)`. See docs/widget.md. */
(() => {
  "use strict";

  const script = document.currentScript ?? document.querySelector('script[src*="widget.js"]');
  const LONGEST_TEXT = 10_000;
  const READY_MS = 5_000; // a proxy that buffers lets no event through
  const SILENCE_MS = 45_000; // three heartbeats
  const POLL_MS = 5_000;
  const HIDDEN_MS = 30_000;
  const TYPING_MS = 4_000;
  const isMobile = matchMedia("(max-width: 480px)");

  const TEXTS = {
    en: {
      open: "Open chat",
      close: "Close chat",
      minimise: "Minimise chat",
      unread: "Unread messages: {n}",
      messages: "Messages",
      earlier: "Show earlier messages",
      conversations: "Conversations",
      current: "Current conversation",
      back: "Back to the current conversation",
      placeholder: "Write a message…",
      attach: "Attach a file",
      remove: "Remove {name}",
      send: "Send",
      sending: "Sending…",
      sent: "Sent",
      failed: "Not sent",
      retry: "Try again",
      you: "You:",
      typing: "{name} is typing…",
      somebody: "Somebody",
      away: "Nobody is here right now. Leave a message, and we will answer as soon as we can.",
      offline: "No connection. Your messages are sent as soon as it is back.",
      left: "Characters left: {n}",
      uploading: "Uploading {name}…",
      uploadFailed: "{name} could not be uploaded.",
      tooLarge: "{name} is larger than {size}.",
      wrongType: "Files such as {name} cannot be sent.",
      answered: "Answered",
      optional: "optional",
      required: "Please fill this in.",
      invalid: "Please check this.",
      invalidEmail: "Please enter an e-mail address such as name@example.com.",
      invalidPhone: "Please enter a phone number such as +44 20 7946 0000.",
      tooLong: "This is too long.",
      notSubmitted: "This could not be sent. Please try again.",
      email: "E-mail address",
      phone: "Phone number",
      account: "Company",
      name: "Name",
    },
    de: {
      open: "Chat öffnen",
      close: "Chat schließen",
      minimise: "Chat minimieren",
      unread: "Ungelesene Nachrichten: {n}",
      messages: "Nachrichten",
      earlier: "Frühere Nachrichten zeigen",
      conversations: "Unterhaltungen",
      current: "Aktuelle Unterhaltung",
      back: "Zurück zur aktuellen Unterhaltung",
      placeholder: "Nachricht schreiben…",
      attach: "Datei anhängen",
      remove: "{name} entfernen",
      send: "Senden",
      sending: "Wird gesendet…",
      sent: "Gesendet",
      failed: "Nicht gesendet",
      retry: "Erneut versuchen",
      you: "Sie:",
      typing: "{name} schreibt…",
      somebody: "Jemand",
      away: "Gerade ist niemand da. Hinterlassen Sie eine Nachricht, wir antworten so bald wie möglich.",
      offline: "Keine Verbindung. Ihre Nachrichten werden gesendet, sobald sie wieder da ist.",
      left: "Noch {n} Zeichen",
      uploading: "{name} wird hochgeladen…",
      uploadFailed: "{name} konnte nicht hochgeladen werden.",
      tooLarge: "{name} ist größer als {size}.",
      wrongType: "Dateien wie {name} können nicht gesendet werden.",
      answered: "Beantwortet",
      optional: "freiwillig",
      required: "Bitte ausfüllen.",
      invalid: "Bitte prüfen Sie diese Angabe.",
      invalidEmail: "Bitte geben Sie eine E-Mail-Adresse wie name@example.com ein.",
      invalidPhone: "Bitte geben Sie eine Telefonnummer wie +49 30 1234567 ein.",
      tooLong: "Das ist zu lang.",
      notSubmitted: "Das konnte nicht gesendet werden. Bitte versuchen Sie es erneut.",
      email: "E-Mail-Adresse",
      phone: "Telefonnummer",
      account: "Firma",
      name: "Name",
    },
  };

  const STYLES = `
    :host([hidden]), [hidden] { display: none !important; }
    * { box-sizing: border-box; }
    .root {
      all: initial;
      --surface: #fff; --text: #1b1d22; --muted: #596070; --line: #c9ced8; --bubble: #eef0f4; --bad: #b3261e;
      color: var(--text); color-scheme: light dark;
      font: 15px/1.45 system-ui, sans-serif;
    }
    @media (prefers-color-scheme: dark) {
      .root { --surface: #1b1d22; --text: #eceef2; --muted: #a9b0bd; --line: #454b57; --bubble: #2b2f37; --bad: #ff9a92; }
    }
    button, input, textarea { font: inherit; color: inherit; margin: 0; }
    button { border: 0; background: none; padding: 8px; border-radius: 8px; cursor: pointer; min-inline-size: 36px; }
    button:disabled { cursor: default; }
    svg { display: block; inline-size: 22px; block-size: 22px; margin: auto; fill: none; stroke: currentColor;
      stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
    [dir="rtl"] .send svg { transform: scaleX(-1); }
    :focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
    .filled { background: var(--accent); color: var(--on-accent); }
    .filled:focus-visible { outline-offset: -5px; }
    .unseen { position: absolute; clip-path: inset(50%); inline-size: 1px; block-size: 1px; overflow: hidden; white-space: nowrap; }

    .launcher, .dialog { position: fixed; z-index: 2147483000; inset-inline-end: 20px; box-shadow: 0 4px 24px rgb(0 0 0 / .28); }
    .launcher { inset-block-end: 20px; inline-size: 56px; block-size: 56px; border-radius: 50%; }
    .launcher svg { inline-size: 28px; block-size: 28px; }
    .badge { position: absolute; inset-block-start: -4px; inset-inline-end: -4px; min-inline-size: 22px; padding: 0 6px;
      border-radius: 11px; background: #b3261e; color: #fff; font-size: 13px; line-height: 22px; text-align: center; }
    .dialog { inset-block-end: 88px; inline-size: 380px; max-inline-size: calc(100vw - 40px);
      block-size: min(620px, 100vh - 108px); block-size: min(620px, 100dvh - 108px);
      display: flex; flex-direction: column; overflow: hidden; border-radius: 16px; background: var(--surface); }
    [data-position="left"] > * { inset-inline: auto; left: 20px; }
    [data-position="right"] > * { inset-inline: auto; right: 20px; }

    header { display: flex; align-items: center; gap: 4px; padding: 10px 10px 10px 18px; padding-inline: 18px 10px;
      background: var(--accent); color: var(--on-accent); }
    h2 { flex: 1; margin: 0; font-size: 17px; line-height: 1.3; overflow-wrap: anywhere; }
    .notice { margin: 0; padding: 8px 18px; background: var(--bubble); font-size: 14px; }
    .conversations { flex: 1; margin: 0; padding: 8px; overflow-y: auto; list-style: none; }
    .conversations button { inline-size: 100%; padding: 10px; text-align: start; }
    .conversations button:hover, .conversations [aria-current] { background: var(--bubble); }
    .conversations p { margin: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .log { flex: 1; padding: 12px 18px; overflow-y: auto; overscroll-behavior: contain; }
    .log:focus-visible { outline-offset: -3px; }
    .log > * { margin-block-end: 10px; }
    .day, .line, .more { color: var(--muted); font-size: 13px; text-align: center; }
    .day { margin-block: 4px 12px; }
    .day::first-letter { text-transform: uppercase; }
    .more { display: block; margin-inline: auto; text-decoration: underline; }
    .message { display: flex; flex-direction: column; align-items: flex-start; gap: 4px; }
    .visitor { align-items: flex-end; }
    .bubble { max-inline-size: 85%; padding: 8px 12px; border-radius: 14px; background: var(--bubble);
      white-space: pre-wrap; overflow-wrap: anywhere; }
    .visitor .bubble { background: var(--accent); color: var(--on-accent); }
    a { color: inherit; text-underline-offset: 2px; }
    .author, .meta { color: var(--muted); font-size: 13px; }
    .meta button { min-inline-size: 0; padding: 0 4px; color: var(--bad); text-decoration: underline; }
    .failed .state, .problem { color: var(--bad); }
    .file { max-inline-size: 85%; overflow-wrap: anywhere; }
    .file img { display: block; max-inline-size: 100%; max-block-size: 240px; border-radius: 12px; }
    .choices { display: flex; flex-wrap: wrap; gap: 8px; margin-block-start: 4px; }
    .choices button { padding: 6px 14px; border: 1px solid var(--muted); border-radius: 18px; text-align: start; }
    .choices button:disabled { border-style: dashed; color: var(--muted); }
    .choices .chosen { border-style: solid !important; font-weight: 600; }
    .form { inline-size: 100%; padding: 14px; border: 1px solid var(--line); border-radius: 14px; }
    .form label { display: block; font-size: 14px; }
    .form input { inline-size: 100%; padding: 8px 10px; border: 1px solid var(--muted); border-radius: 8px; background: var(--surface); }
    .form [aria-invalid="true"] { border-color: var(--bad); box-shadow: inset 0 0 0 1px var(--bad); }
    .form .field { margin-block-end: 12px; }
    .form dl, .problem { margin: 0; font-size: 14px; }
    .form dd { margin: 0 0 6px; overflow-wrap: anywhere; }
    .form .filled { inline-size: 100%; }
    .muted, dt { color: var(--muted); font-size: 13px; }
    .typing { margin: 0; padding: 0 18px 6px; color: var(--muted); font-size: 13px; }

    .composer { border-block-start: 1px solid var(--line); padding: 8px; }
    .composer .row { display: flex; align-items: flex-end; gap: 4px; }
    textarea { flex: 1; min-inline-size: 0; padding: 8px 10px; border: 1px solid var(--muted); border-radius: 10px;
      background: var(--surface); resize: none; }
    .files { margin: 0; padding: 0; list-style: none; font-size: 14px; }
    .files li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
    .files span { flex: 1; }
    .composer .muted { margin: 0; text-align: end; }
    .back { margin: 8px; }

    @media (max-width: 480px) {
      .dialog { inset: 0; inline-size: auto; max-inline-size: none; block-size: 100vh; block-size: 100dvh; border-radius: 0;
        padding: env(safe-area-inset-top) env(safe-area-inset-right) env(safe-area-inset-bottom) env(safe-area-inset-left);
        background: linear-gradient(var(--accent) 50%, var(--surface) 0); }
      .dialog > :not(header) { background-color: var(--surface); }
      .dialog > .notice { background-color: var(--bubble); }
      .dialog:not([hidden]) ~ .launcher { display: none; }
      input, textarea { font-size: 16px; }
    }
    @media (prefers-reduced-motion: no-preference) {
      .dialog { animation: rise .16s ease-out; }
      @keyframes rise { from { opacity: 0; translate: 0 12px; } }
    }
    @media (forced-colors: active) { .launcher, .dialog, .bubble, .filled { border: 1px solid; } }
  `;

  const FIELDS = {
    email: { type: "email", inputMode: "email", autocomplete: "email", maxLength: 320 },
    phone: { type: "tel", inputMode: "tel", autocomplete: "tel", maxLength: 64 },
    account: { type: "text", inputMode: "text", autocomplete: "organization", maxLength: 255 },
    name: { type: "text", inputMode: "text", autocomplete: "name", maxLength: 255 },
  };

  const ICONS = {
    chat: "M4 5h16v11H10l-5 4v-4H4z",
    down: "M5 9l7 7 7-7",
    cross: "M6 6l12 12M18 6L6 18",
    list: "M4 6h16M4 12h16M4 18h16",
    clip: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7L9.5 17a1.7 1.7 0 0 1-2.4-2.4L14.5 7",
    send: "M4 4l17 8-17 8 3-8zM7 12h14",
  };

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else if (value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  function icon(name) {
    const namespace = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(namespace, "svg");
    const path = document.createElementNS(namespace, "path");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  }

  /** Put `nodes` into `parent` in this order, and touch no node that is in its place: it may have the focus. */
  function arrange(parent, nodes) {
    const wanted = new Set(nodes);
    for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
    nodes.forEach((node, index) => {
      if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] ?? null);
    });
  }

  function linked(text) {
    return text.split(/(\bhttps?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]}])/i).map((part, index) => {
      if (index % 2 === 0 || !URL.canParse(part)) return part;
      return make("a", { href: part, target: "_blank", rel: "noopener noreferrer nofollow" }, part);
    });
  }

  function randomId() {
    if (crypto.randomUUID) return crypto.randomUUID(); // missing on pages without TLS
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function backoff(failures) {
    return Math.min(60_000, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
  }

  /** Black or white, whichever is easier to read on `color`, an `rgb(...)` as browsers compute it. */
  function readableOn(color) {
    const [red, green, blue] = color.match(/[\d.]+/g).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    return 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 ? "#fff" : "#000";
  }

  /** A request that failed. Status 0: there was no answer. */
  class Failure extends Error {
    constructor(status, answer, retryAfter = 0) {
      super(answer?.error?.message ?? (status ? `the chat's server answered ${status}` : "the chat's server cannot be reached"));
      this.status = status;
      this.code = answer?.error?.code ?? (status ? `http_${status}` : "unreachable");
      this.problems = answer?.problems;
      this.retryAfterMs = retryAfter * 1000;
    }

    get isTemporary() {
      return [0, 408, 425, 429].includes(this.status) || this.status >= 500;
    }
  }

  /** What the browser keeps of the session: in localStorage where that is allowed, else as long as the page lives. */
  class Store {
    static NAMES = ["token", "visitor", "open", "queue", "ended"];

    constructor(channel, isKept) {
      this.prefix = `convsdk:${channel}:`;
      this.values = {};
      this.isKept = isKept;
    }

    read(name) {
      try {
        if (this.isKept) this.values[name] = JSON.parse(localStorage.getItem(this.prefix + name));
      } catch {
        this.isKept = false; // private modes throw
      }
      return this.values[name] ?? null;
    }

    write(name, value) {
      this.values[name] = value;
      try {
        if (!this.isKept) return;
        if (value == null) localStorage.removeItem(this.prefix + name);
        else localStorage.setItem(this.prefix + name, JSON.stringify(value));
      } catch {
        this.isKept = false;
      }
    }

    keep(isKept) {
      const values = Object.fromEntries(Store.NAMES.map((name) => [name, this.read(name)]));
      if (!isKept) for (const name of Store.NAMES) this.write(name, null);
      this.isKept = isKept;
      for (const name of Store.NAMES) if (values[name] != null) this.write(name, values[name]);
    }
  }

  class Api {
    constructor(base, store) {
      this.base = base;
      this.store = store;
      this.isReachable = true;
      this.life = {};
    }

    /** Drop the answers to what is under way: they are about a session that is over. */
    forget() {
      this.life = {};
    }

    async send(method, path, { body, type, signal } = {}) {
      const token = this.store.read("token");
      const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(type && { "Content-Type": type }) };
      const url = URL.canParse(path) ? path : this.base + path;
      const response = await fetch(url, { method, headers, body, signal, credentials: "include", cache: "no-store" }).catch(() => null);
      if (response || !signal?.aborted) this.isReachable = Boolean(response);
      if (response?.ok) return response;
      const answer = await response?.json().catch(() => null);
      throw new Failure(response?.status ?? 0, answer, Number(response?.headers.get("Retry-After")) || 0);
    }

    async json(method, path, value) {
      const { life } = this;
      const isFile = value instanceof Blob;
      const body = value && (isFile ? value : JSON.stringify(value));
      const type = value && (isFile ? value.type || "application/octet-stream" : "application/json");
      const response = await this.send(method, path, { body, type, signal: AbortSignal.timeout(isFile ? 300_000 : 20_000) });
      const answer = response.status === 204 ? null : await response.json().catch(() => {
        throw new Failure(0);
      });
      if (life !== this.life) throw new Failure(0);
      return answer;
    }
  }

  /** Says when there may be something new: by the event stream, and by polling while there is none. */
  class Live {
    constructor(api, hear) {
      this.api = api;
      this.hear = hear;
      this.running = null;
      addEventListener("online", () => this.wake());
      addEventListener("offline", () => this.stream?.abort());
      document.addEventListener("visibilitychange", () => this.#watchVisibility());
    }

    run(isWanted) {
      if (isWanted === Boolean(this.running)) return;
      this.running?.abort();
      this.running = isWanted ? new AbortController() : null;
      if (isWanted) this.#loop(this.running.signal);
      else this.stream?.abort();
      this.wake();
    }

    wake() {
      this.wakeUp?.();
    }

    async #loop(signal) {
      for (this.failures = 0; !signal.aborted; this.failures += 1) {
        let wait = HIDDEN_MS;
        if (!document.hidden) {
          const failure = await this.#listen().catch((error) => error);
          wait = failure?.retryAfterMs || backoff(this.failures);
        }
        for (const end = Date.now() + wait; Date.now() < end && !signal.aborted; ) {
          this.hear("changed", {});
          const isWoken = await this.#pause(Math.min(end - Date.now(), document.hidden ? HIDDEN_MS : POLL_MS));
          if (isWoken) break;
        }
      }
    }

    #pause(ms) {
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, ms, false);
        this.wakeUp = () => {
          clearTimeout(timer);
          resolve(true);
        };
      });
    }

    async #listen() {
      const stream = (this.stream = new AbortController());
      let timer;
      const watch = (ms) => {
        clearTimeout(timer);
        timer = setTimeout(() => stream.abort(), ms);
      };
      watch(READY_MS);
      try {
        const response = await this.api.send("GET", "/events", { signal: stream.signal });
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let text = "", isReady = false; ; ) {
          const { value, done } = await reader.read();
          if (done) return;
          const frames = (text + value).replaceAll("\r\n", "\n").split("\n\n");
          text = frames.pop();
          for (const frame of frames) isReady = this.#read(frame) || isReady;
          if (isReady) watch(SILENCE_MS);
        }
      } finally {
        clearTimeout(timer);
      }
    }

    #read(frame) {
      const line = (name) => frame.match(new RegExp(`^${name}: ?(.*)$`, "m"))?.[1];
      const event = line("event");
      if (event) this.hear(event, JSON.parse(line("data") || "{}"));
      if (event === "ready") this.failures = -1;
      return event === "ready";
    }

    #watchVisibility() {
      clearTimeout(this.hiding);
      // Browsers allow six connections to a host: a tab that nobody looks at takes none.
      if (document.hidden) this.hiding = setTimeout(() => this.stream?.abort(), HIDDEN_MS);
      else this.wake();
    }
  }

  /** The visitor's side of the conversation: what is known, what is still to be sent, and in which order. */
  class Chat {
    constructor(channel, base, options, emit) {
      this.options = options;
      this.emit = emit;
      this.onchange = () => {};
      this.isKept = options.keep !== false;
      this.store = new Store(channel, this.isKept);
      this.api = new Api(base, this.store);
      this.live = new Live(this.api, (event, data) => this.#hear(event, data));
      this.person = null;
      this.isOpen = false;
      this.sendAfter = 0;
      this.failures = 0;
      this.#clear();
      addEventListener("storage", (event) => this.#follow(event));
      addEventListener("online", () => this.#hurry());
      addEventListener("offline", () => this.#tell({ isOffline: true }));
      document.addEventListener("visibilitychange", () => this.settle());
    }

    #clear() {
      this.session = null;
      this.conversations = [];
      this.unread = 0;
      this.sent = new Map();
      this.answers = new Map();
      this.#show(null);
    }

    #show(view) {
      this.view = view;
      this.conversation = null;
      this.messages = new Map();
      this.expects = null;
      this.hasEarlier = false;
      this.isLoaded = false;
      this.typing = null;
    }

    #tell(change) {
      Object.assign(this, change);
      this.onchange();
    }

    async load(show) {
      for (let failures = 0; !this.config; failures += 1) {
        try {
          this.config = await this.api.json("GET", "");
        } catch (failure) {
          if (!failure.isTemporary) throw failure;
          await new Promise((resolve) => setTimeout(resolve, failure.retryAfterMs || backoff(failures)));
        }
      }
      this.hasAgents = this.config.has_agents;
      if (!this.config.session) this.store.write("ended", null);
      this.isSessionKept = true;
      this.#adopt(this.config.session);
      this.isOpen = this.isOpen || Boolean(this.session && this.store.read("open")) || this.options.is_open === true;
      show();
      this.emit("ready", { visitor: this.session?.visitor ?? null });
      await this.settle();
    }

    get queue() {
      return this.store.read("queue") ?? [];
    }

    #requeue(change) {
      this.store.write("queue", change(this.queue));
      this.onchange();
    }

    /** Messages in order, and after them the visitor's own that are still on their way. */
    get items() {
      const known = new Set([...this.messages.values()].map((message) => message.client_id));
      const waiting = [...this.sent.values(), ...this.queue].filter((item) => !known.has(item.client_id));
      return [...this.messages.values(), ...(this.view ? [] : waiting)];
    }

    /** The message whose form or choices can be answered now. */
    get question() {
      const block = this.expects?.block;
      const isAnswered = [...this.sent.values(), ...this.queue].some((item) => item.block === block && !item.hasFailed);
      const asked = [...this.messages.values()].findLast((message) => message.detail?.block === block);
      if (!block || !asked || isAnswered || this.view || this.answers.get(asked.id)?.fields) return null;
      return asked;
    }

    open({ byVisitor }) {
      this.isOpen = true;
      this.isOpening ||= byVisitor;
      if (this.session || byVisitor) this.store.write("open", true);
      this.emit("open");
      this.onchange();
      this.#loadConversations();
      return this.settle();
    }

    close() {
      this.isOpen = false;
      this.store.write("open", null);
      if (this.view) this.#show(null);
      this.emit("close");
      this.onchange();
      return this.settle();
    }

    write({ text, attachments = [], block, choice }) {
      const expected = this.expects?.kind === "text" ? this.expects.block : undefined;
      const item = { client_id: randomId(), from: "visitor", at: new Date().toISOString(), text, attachments };
      this.#requeue((queue) => [...queue, { ...item, block: block ?? expected, choice }]);
      return this.settle();
    }

    retry(id) {
      this.#requeue((queue) => queue.map((item) => (item.client_id === id ? { ...item, hasFailed: false } : item)));
      return this.settle();
    }

    async submit(message, fields) {
      const { form, block } = message.detail;
      // One id for all tries: the answer to the first may have been lost.
      const answer = this.answers.get(message.id) ?? { id: randomId() };
      this.answers.set(message.id, answer);
      const accepted = await this.api.json("POST", "/forms", { id: answer.id, form, block, fields });
      answer.fields = fields;
      this.#adopt(accepted.session ?? this.session);
      await this.settle();
    }

    async upload(file) {
      if (!this.session) {
        this.mustBegin = true;
        await this.settle();
      }
      return this.api.json("POST", `/files?name=${encodeURIComponent(file.name)}`, file);
    }

    async fetchFile(url) {
      return URL.createObjectURL(await (await this.api.send("GET", url)).blob());
    }

    /** The token goes to the chat's own server, and with it nothing can be loaded by a plain `src` or `href`. */
    needsToken(url) {
      return Boolean(this.store.read("token")) && url.startsWith(this.api.base);
    }

    sendTyping(isTyping) {
      if (this.session) this.api.json("POST", "/typing", { is_typing: isTyping }).catch(() => {});
    }

    choose(conversation) {
      this.#show(conversation.is_current ? null : conversation.id);
      this.onchange();
      return this.settle();
    }

    async showEarlier() {
      const [first] = this.messages.keys();
      const answer = await this.#read({ before: first });
      const earlier = answer.messages.map((message) => [message.id, message]);
      this.#tell({ messages: new Map([...earlier, ...this.messages]), hasEarlier: answer.has_more });
    }

    identify(person) {
      this.person = { ...person };
      return this.settle();
    }

    reset() {
      this.#end();
      this.person = null;
      this.close();
      return this.settle();
    }

    consent(isGiven) {
      if (!isGiven) this.#end();
      this.isKept = isGiven;
      this.store.keep(isGiven);
      this.mustBegin = isGiven;
      return this.settle();
    }

    #end() {
      const isKnown = this.session || !this.config;
      this.#forget();
      // Without a connection the cookie outlives the log-out: it is ended as soon as there is one.
      if (isKnown) this.store.write("ended", true);
    }

    #forget() {
      this.api.forget();
      this.#clear();
      this.live.run(false);
      for (const name of ["visitor", "open", "queue"]) this.store.write(name, null);
      this.onchange();
    }

    #adopt(session) {
      if (this.store.read("ended")) return;
      const known = this.session?.visitor ?? this.store.read("visitor");
      if (known && known !== session?.visitor) this.#forget();
      if (!session) return;
      this.session = session;
      this.store.write("visitor", session.visitor);
      this.store.write("open", this.isOpen || this.store.read("open") || null);
      if (session.token) this.store.write("token", session.token);
      this.#count(session.unread);
    }

    #count(unread) {
      if (unread !== this.unread) this.emit("unread", unread);
      this.unread = unread;
    }

    /** Do whatever is still to be done, in order; once more if something came up meanwhile. */
    settle() {
      this.isDue = true;
      this.settling ??= this.#settle().finally(() => {
        this.settling = null;
      });
      return this.settling;
    }

    async #settle() {
      clearTimeout(this.timer);
      while (this.isDue && this.config) {
        this.isDue = false;
        try {
          await this.#work();
          this.failures = 0;
        } catch (failure) {
          this.#cope(failure);
        }
      }
      this.live.run(Boolean(this.session && (this.isOpen || this.session.conversation || this.messages.size)));
      this.#tell({ isOffline: !this.api.isReachable });
    }

    async #work() {
      // What cannot be sent must not keep from reading.
      const failure = Date.now() < this.sendAfter ? null : await this.#send().catch((error) => error);
      if (this.session) await this.#fetchMessages();
      if (this.session && this.unread && this.isOpen && !document.hidden) await this.#see();
      if (failure) throw failure;
    }

    #cope(failure) {
      if (!(failure instanceof Failure)) throw failure;
      if (failure.status === 401) this.#lose();
      else if (!failure.isTemporary) this.emit("error", failure);
      else this.#postpone(failure);
    }

    #postpone(failure) {
      const wait = failure.retryAfterMs || backoff(this.failures);
      this.failures += 1;
      this.sendAfter = Date.now() + wait;
      this.timer = setTimeout(() => this.settle(), wait + 1);
    }

    #hurry() {
      this.sendAfter = 0;
      this.failures = 0;
      this.settle();
    }

    /** The session is over on the server. What was not sent stays, for the visitor to send again. */
    #lose() {
      const unsent = this.queue.map((item) => ({ ...item, hasFailed: true }));
      this.#forget();
      this.store.write("token", null);
      this.#requeue(() => unsent);
    }

    async #send() {
      if (this.store.read("ended")) await this.#sendEnd();
      await this.#begin();
      if (!this.session) return;
      await this.#sendQueue();
      await this.#sendPerson();
    }

    async #sendEnd() {
      await this.api.json("DELETE", "/session").catch((failure) => {
        if (failure.isTemporary) throw failure;
      });
      this.store.write("token", null);
      this.store.write("ended", null);
    }

    async #begin() {
      const isOpening = Boolean(this.isOpening);
      const isWanted = this.mustBegin || this.queue.some((item) => !item.hasFailed);
      const isMissing = !this.session || (this.isKept && !this.isSessionKept);
      if (!isOpening && !(isWanted && isMissing)) return;
      this.isSessionKept = this.isKept;
      this.#adopt(await this.api.json("POST", "/session", { is_open: isOpening, keep: this.isKept }));
      this.mustBegin = false;
      if (isOpening) this.isOpening = false;
    }

    async #sendQueue() {
      for (let item; (item = this.queue.find((one) => !one.hasFailed)); ) {
        const { client_id: id, text, attachments, block, choice } = item;
        try {
          const ids = attachments.map((file) => file.id);
          const answer = await this.api.json("POST", "/messages", { id, text, attachments: ids, block, choice });
          this.sent.set(id, { ...item, isSent: true });
          this.#requeue((queue) => queue.filter((one) => one.client_id !== id));
          this.#adopt(answer.session);
        } catch (failure) {
          if (failure.isTemporary || failure.status === 401) throw failure;
          this.#requeue((queue) => queue.map((one) => (one.client_id === id ? { ...one, hasFailed: true } : one)));
          this.emit("error", failure);
        }
      }
    }

    async #sendPerson() {
      const { person } = this;
      if (!person) return;
      person.id ??= randomId();
      try {
        const token = typeof person.token === "function" ? await person.token(this.session.visitor) : person.token;
        this.#adopt(await this.api.json("POST", "/identity", { ...person, token }));
        this.emit("identified", { visitor: this.session.visitor, is_proven: this.session.is_proven });
      } catch (failure) {
        if (failure.isTemporary || failure.status === 401) throw failure;
        this.emit("error", failure);
      }
      if (this.person === person) this.person = null;
      this.#loadConversations();
    }

    #read(query) {
      const pairs = Object.entries({ conversation: this.view, ...query }).filter(([, value]) => value != null);
      return this.api.json("GET", `/messages?${new URLSearchParams(pairs)}`);
    }

    async #fetchMessages() {
      const { view } = this;
      const after = [...this.messages.keys()].at(-1);
      const answer = await this.#read({ after });
      if (view !== this.view) return;
      if (after && answer.conversation !== this.conversation) {
        this.#show(view);
        this.isDue = true;
        return;
      }
      this.#take(answer, after);
      if (after && answer.has_more) this.isDue = true;
    }

    #take(answer, after) {
      for (const message of answer.messages) {
        this.messages.set(message.id, message);
        this.sent.delete(message.client_id);
        if (this.isLoaded && ["agent", "bot"].includes(message.from)) this.#receive(message);
      }
      this.conversation = answer.conversation;
      this.expects = answer.expects;
      this.hasAgents = answer.has_agents;
      if (!after) this.hasEarlier = answer.has_more;
      this.isLoaded = true;
    }

    #receive(message) {
      this.typing = null;
      this.#count(this.unread + 1);
      this.emit("message", message);
    }

    async #see() {
      const message = [...this.messages.keys()].at(-1);
      if (message) await this.api.json("POST", "/seen", { conversation: this.conversation, message });
      this.#count(0);
    }

    async #loadConversations() {
      if (!this.session) return;
      const answer = await this.api.json("GET", "/conversations").catch(() => null);
      if (answer) this.#tell({ conversations: answer.conversations });
    }

    #hear(event, data) {
      if (event === "session") this.#reload();
      else if (event === "typing") this.#hearTyping(data);
      else this.#hearNews(data);
    }

    async #hearNews({ conversation }) {
      await this.settle();
      if (conversation && conversation !== this.conversation) await this.#loadConversations();
    }

    #hearTyping({ conversation, by, is_typing: isTyping }) {
      if (conversation !== this.conversation) return;
      clearTimeout(this.forgetting);
      this.forgetting = setTimeout(() => this.#tell({ typing: null }), 3 * TYPING_MS);
      this.#tell({ typing: isTyping ? { by } : null });
    }

    async #reload() {
      const config = await this.api.json("GET", "").catch(() => null);
      if (!config) return;
      this.#adopt(config.session);
      await this.settle();
    }

    /** Another tab opened, closed, wrote, or logged out. */
    #follow({ key, newValue }) {
      const name = key?.slice(this.store.prefix.length);
      if (!this.config || !this.store.isKept || (key !== null && key !== this.store.prefix + name)) return;
      if (name === "open" && Boolean(newValue) !== this.isOpen) {
        this.#tell({ isOpen: Boolean(newValue) });
        this.settle();
      }
      if (name === "queue") this.onchange();
      if (key === null || name === "visitor") this.#reload();
    }
  }

  class ConvsdkChat extends HTMLElement {
    #nodes = new Map();
    #files = [];

    start(chat, { lang, dir, texts = {}, color, position }) {
      const wanted = lang || document.documentElement.lang || navigator.language;
      const builtIn = TEXTS[wanted.split("-")[0].toLowerCase()];
      this.chat = chat;
      this.texts = { ...TEXTS.en, ...builtIn, ...texts };
      this.lang = builtIn || Object.keys(texts).length ? wanted : "en";
      this.dates = {
        day: new Intl.DateTimeFormat(this.lang, { weekday: "long", day: "numeric", month: "long", year: "numeric" }),
        time: new Intl.DateTimeFormat(this.lang, { hour: "numeric", minute: "2-digit" }),
        relative: new Intl.RelativeTimeFormat(this.lang, { numeric: "auto" }),
      };
      this.attachShadow({ mode: "open" }).adoptedStyleSheets = [ConvsdkChat.sheet(STYLES)];
      this.#build(dir || (/^(ar|fa|he|ur|yi)\b/i.test(this.lang) ? "rtl" : "ltr"), position);
      this.#paint(color || chat.config.color);
      chat.onchange = () => this.#scheduleRender();
      isMobile.addEventListener("change", chat.onchange);
      this.#render();
    }

    static sheet(text) {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(text);
      return sheet;
    }

    #text(name, values = {}) {
      return this.texts[name].replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
    }

    #paint(color) {
      const paint = (accent, text) =>
        (this.shadowRoot.adoptedStyleSheets = [
          this.shadowRoot.adoptedStyleSheets[0],
          ConvsdkChat.sheet(`.root { --accent: ${accent}; --on-accent: ${text}; }`),
        ]);
      paint(CSS.supports("color", color) ? color : "#1f5fd0", "#fff");
      const computed = getComputedStyle(this.launcher).backgroundColor;
      if (/^rgb\(/.test(computed)) paint(computed, readableOn(computed));
      else paint("#1f5fd0", "#fff");
    }

    #build(dir, position) {
      const button = (className, label, ...children) =>
        make("button", { type: "button", className, "aria-label": label && this.#text(label) }, ...children);

      this.badge = make("span", { className: "badge" });
      this.launcher = button("launcher filled", null, icon("chat"), this.badge);
      this.launcher.onclick = () => (this.chat.isOpen ? this.#close() : this.#open());

      this.heading = make("h2", { id: "title" }, this.chat.config.title || "Chat");
      this.menu = button("menu", "conversations", icon("list"));
      this.menu.onclick = () => this.#toggleMenu(this.list.hidden);
      this.minimise = button("minimise", null, icon("down"));
      this.minimise.onclick = () => this.#close();

      this.notice = make("p", { className: "notice", role: "status" });
      this.list = make("ul", { className: "conversations", id: "conversations", hidden: true });
      this.log = make("div", { className: "log", role: "log", tabIndex: 0, "aria-label": this.#text("messages"), "aria-live": "polite" });
      this.typing = make("p", { className: "typing", role: "status" });
      this.back = make("button", { type: "button", className: "back filled" }, this.#text("back"));
      this.back.onclick = () => this.#choose({ is_current: true });

      this.dialog = make("section", { className: "dialog", id: "dialog", role: "dialog", "aria-labelledby": "title", hidden: true },
        make("header", {}, this.heading, this.menu, this.minimise),
        this.notice, this.list, this.log, this.typing, this.back, this.#buildComposer(button));
      this.dialog.onkeydown = (event) => this.#press(event);
      this.root = make("div", { className: "root", dir, lang: this.lang, "data-position": position }, this.dialog, this.launcher);
      this.launcher.setAttribute("aria-controls", "dialog");
      this.menu.setAttribute("aria-controls", "conversations");
      this.shadowRoot.append(this.root);
    }

    #buildComposer(button) {
      const label = this.#text("placeholder");
      this.input = make("textarea", { rows: 1, maxLength: LONGEST_TEXT, placeholder: label, "aria-label": label, dir: "auto" });
      this.input.oninput = () => this.#typed();
      this.input.onkeydown = (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.#send();
      };
      this.counter = make("p", { className: "muted", role: "status" });
      this.chips = make("ul", { className: "files" });
      this.picker = make("input", { type: "file", multiple: true, hidden: true, accept: (this.#allowed.types ?? []).join() });
      this.picker.onchange = () => this.#attach();
      const attach = button("attach", "attach", icon("clip"));
      attach.hidden = !this.#allowed.max_bytes;
      attach.onclick = () => this.picker.click();
      this.sendButton = make("button", { type: "submit", className: "send", "aria-label": this.#text("send") }, icon("send"));
      this.composer = make("form", { className: "composer" }, this.chips, this.counter,
        make("div", { className: "row" }, attach, this.picker, this.input, this.sendButton));
      this.composer.onsubmit = (event) => {
        event.preventDefault();
        this.#send();
      };
      return this.composer;
    }

    get #allowed() {
      return this.chat.config.attachments ?? {};
    }

    #open() {
      this.chat.open({ byVisitor: true });
      this.focusComposer();
    }

    focusComposer() {
      this.#render();
      this.input.focus();
    }

    #close() {
      this.chat.close();
      this.#render();
      this.launcher.focus();
    }

    #press(event) {
      if (event.key === "Escape") {
        event.stopPropagation();
        if (this.list.hidden) this.#close();
        else this.#toggleMenu(false);
      }
      if (event.key === "Tab" && isMobile.matches) this.#trap(event);
    }

    #trap(event) {
      const all = [...this.dialog.querySelectorAll("button, input, textarea, a[href], [tabindex]")];
      const reachable = all.filter((element) => !element.disabled && element.getClientRects().length);
      const [from, to] = event.shiftKey ? [reachable[0], reachable.at(-1)] : [reachable.at(-1), reachable[0]];
      if (this.shadowRoot.activeElement !== from) return;
      event.preventDefault();
      to.focus();
    }

    #toggleMenu(isOpen) {
      this.list.hidden = !isOpen;
      this.#render();
      (isOpen ? this.list.querySelector("button") : this.menu)?.focus();
    }

    #choose(conversation) {
      this.list.hidden = true;
      this.chat.choose(conversation);
      this.#render();
      (conversation.is_current ? this.input : this.log).focus();
    }

    #typed() {
      const { input } = this;
      for (input.rows = 1; input.rows < 6 && input.scrollHeight > input.clientHeight; ) input.rows += 1;
      const left = LONGEST_TEXT - input.value.length;
      this.counter.textContent = left < 500 ? this.#text("left", { n: left }) : "";
      const isTyping = input.value !== "";
      if (isTyping && Date.now() - (this.typedAt ?? 0) < TYPING_MS) return;
      this.typedAt = isTyping ? Date.now() : 0;
      this.chat.sendTyping(isTyping);
    }

    #send() {
      const text = this.input.value.trim();
      const isBusy = this.#files.some((entry) => entry.isUploading);
      const attachments = this.#files.filter((entry) => entry.attachment).map((entry) => entry.attachment);
      if (isBusy || !(text || attachments.length)) return;
      this.#files = [];
      this.input.value = "";
      this.#typed();
      this.chat.write({ text, attachments });
      this.#render();
      this.log.scrollTop = this.log.scrollHeight;
      this.input.focus();
    }

    #attach() {
      for (const file of this.picker.files) this.#upload(file);
      this.picker.value = "";
    }

    async #upload(file) {
      const entry = { name: file.name, problem: this.#refusal(file) };
      this.#files.push(entry);
      if (!entry.problem) {
        entry.isUploading = true;
        this.#render();
        try {
          entry.attachment = await this.chat.upload(file);
        } catch {
          entry.problem = this.#text("uploadFailed", file);
        }
        entry.isUploading = false;
      }
      this.#render();
    }

    #refusal(file) {
      const { max_bytes: most, types } = this.#allowed;
      const size = new Intl.NumberFormat(this.lang, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 }).format(most / 1e6);
      if (file.size > most) return this.#text("tooLarge", { name: file.name, size });
      const isAllowed = types.some((type) => type === file.type || (type.endsWith("/*") && file.type.startsWith(type.slice(0, -1))));
      return isAllowed ? null : this.#text("wrongType", file);
    }

    #scheduleRender() {
      if (this.isScheduled) return;
      this.isScheduled = true;
      queueMicrotask(() => this.#render());
    }

    #render() {
      const { chat } = this;
      this.isScheduled = false;
      this.badge.textContent = chat.unread > 99 ? "99+" : chat.unread;
      this.badge.hidden = !chat.unread || chat.isOpen;
      const unread = this.badge.hidden ? "" : `. ${this.#text("unread", { n: chat.unread })}`;
      this.launcher.setAttribute("aria-label", chat.isOpen ? this.texts.close : this.texts.open + unread);
      this.launcher.setAttribute("aria-expanded", chat.isOpen);
      this.dialog.hidden = !chat.isOpen;
      if (chat.isOpen) this.#renderDialog();
    }

    #renderDialog() {
      const { chat } = this;
      this.dialog.ariaModal = isMobile.matches ? "true" : null;
      this.minimise.setAttribute("aria-label", this.texts[isMobile.matches ? "close" : "minimise"]);
      this.minimise.replaceChildren(icon(isMobile.matches ? "cross" : "down"));
      this.menu.hidden = chat.conversations.length < 2;
      this.menu.setAttribute("aria-expanded", !this.list.hidden);
      this.notice.textContent = chat.isOffline ? this.texts.offline : chat.hasAgents ? "" : this.texts.away;
      this.notice.hidden = !this.notice.textContent;
      this.log.hidden = !this.list.hidden;
      this.composer.hidden = !this.list.hidden || chat.view !== null;
      this.back.hidden = chat.view === null;
      this.typing.textContent = chat.typing ? this.#text("typing", { name: chat.typing.by || this.texts.somebody }) : "";
      if (!this.list.hidden) this.#renderConversations();
      this.#renderFiles();
      this.#renderLog();
    }

    #renderConversations() {
      this.list.replaceChildren(...this.chat.conversations.map((conversation) => {
        const isShown = conversation.id === (this.chat.view ?? this.chat.conversation);
        const subject = conversation.subject || (conversation.is_current ? this.texts.current : this.#day(conversation.last_at));
        const button = make("button", { type: "button", "aria-current": isShown ? "true" : null },
          make("p", { dir: "auto" }, subject),
          make("p", { className: "muted", dir: "auto" }, `${this.#day(conversation.last_at)} · ${conversation.last}`));
        button.onclick = () => this.#choose(conversation);
        return make("li", {}, button);
      }));
    }

    #renderFiles() {
      this.chips.replaceChildren(...this.#files.map((entry) => {
        const label = entry.isUploading ? this.#text("uploading", entry) : (entry.problem ?? entry.name);
        const remove = make("button", { type: "button", "aria-label": this.#text("remove", entry) }, icon("cross"));
        remove.onclick = () => {
          this.#files = this.#files.filter((one) => one !== entry);
          this.#render();
          this.input.focus();
        };
        const progress = entry.isUploading ? make("progress", { "aria-label": label }) : null;
        return make("li", { className: entry.problem ? "problem" : "", role: entry.problem ? "alert" : null },
          make("span", {}, label), progress, remove);
      }));
      this.sendButton.disabled = this.#files.some((entry) => entry.isUploading);
    }

    #renderLog() {
      const { log, chat } = this;
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
      const rows = [];
      if (chat.hasEarlier) rows.push(this.#row("earlier", () => this.#drawEarlier()));
      else if (!chat.view && chat.config.greeting) rows.push(this.#row("greeting", () => this.#drawBubble("bot", chat.config.greeting)));
      const { question, items } = chat;
      let day = null;
      items.forEach((item, index) => {
        const itemDay = this.#day(item.at);
        if (itemDay !== day) rows.push(this.#row(`day ${itemDay}`, () => make("div", { className: "day" }, itemDay)));
        day = itemDay;
        const isAsked = item === question;
        const key = `${item.client_id ?? item.id}${item.detail?.form ? isAsked : ""}`;
        const row = this.#row(key, () => this.#drawMessage(item, isAsked));
        this.#refresh(row, item, { isAsked, isLast: index === items.length - 1, next: items[index + 1] });
        rows.push(row);
      });
      const before = log.scrollHeight - log.scrollTop;
      arrange(log, rows);
      log.setAttribute("aria-busy", !chat.isLoaded && Boolean(chat.session));
      const last = rows.at(-1);
      if (isAtEnd || !this.hasScrolled) log.scrollTop = log.scrollHeight;
      else if (last === this.lastRow) log.scrollTop = log.scrollHeight - before;
      this.hasScrolled = items.length > 0;
      this.lastRow = last;
    }

    #row(key, draw) {
      if (!this.#nodes.has(key)) this.#nodes.set(key, draw());
      return this.#nodes.get(key);
    }

    #day(moment) {
      const midnight = (date) => new Date(date).setHours(0, 0, 0, 0);
      const days = Math.round((midnight(moment) - midnight(Date.now())) / 86_400_000);
      return days > -2 ? this.dates.relative.format(days, "day") : this.dates.day.format(new Date(moment));
    }

    #drawEarlier() {
      const button = make("button", { type: "button", className: "more" }, this.texts.earlier);
      button.onclick = () => this.chat.showEarlier().catch(() => {});
      return button;
    }

    #drawBubble(from, text) {
      return make("div", { className: `message ${from}` }, make("div", { className: "bubble", dir: "auto" }, ...linked(text)));
    }

    #drawMessage(item, isAsked) {
      if (item.from === "line") return make("div", { className: "line", dir: "auto" }, item.text);
      const node = item.text ? this.#drawBubble(item.from, item.text) : make("div", { className: `message ${item.from}` });
      const author = item.from === "visitor" ? make("span", { className: "unseen" }, this.texts.you) : null;
      node.prepend(author ?? (item.by ? make("span", { className: "author", dir: "auto" }, item.by) : ""));
      for (const file of item.attachments ?? []) node.append(this.#drawFile(file));
      if (item.detail?.choices) node.append(this.#drawChoices(item));
      if (item.detail?.form) node.append(isAsked ? this.#drawForm(item) : this.#drawAnswers(item));
      const time = make("time", { dateTime: item.at }, this.dates.time.format(new Date(item.at)));
      node.append(make("div", { className: "meta" }, time, make("span", { className: "state" })));
      return node;
    }

    /** Show what can change of a message that is drawn already; drawing it anew would have it read out again. */
    #refresh(node, item, { isAsked, isLast, next }) {
      for (const button of node.querySelectorAll(".choices button")) {
        button.disabled = !isAsked;
        button.classList.toggle("chosen", !isAsked && next?.text === button.textContent);
      }
      const state = node.querySelector(".state");
      if (item.from !== "visitor" || !state) return;
      const isSent = typeof item.id === "number" || item.isSent;
      const name = item.hasFailed ? "failed" : isSent ? "sent" : "sending";
      const shown = name === "sent" && !isLast ? "" : name;
      if (state.dataset.name === shown) return;
      state.dataset.name = shown;
      node.classList.toggle("failed", name === "failed");
      state.replaceChildren(shown && ` · ${this.texts[shown]} `, ...(item.hasFailed ? [this.#drawRetry(item)] : []));
    }

    #drawRetry(item) {
      const button = make("button", { type: "button" }, this.texts.retry);
      button.onclick = () => {
        this.chat.retry(item.client_id);
        this.input.focus();
      };
      return button;
    }

    #drawFile({ name, media_type: type, size, url }) {
      const label = size ? `${name} (${this.#size(size)})` : name;
      const address = url && new URL(url, script.src);
      if (!/^https?:$/.test(address?.protocol)) return make("div", { className: "file" }, label);
      const isOurs = address.href.startsWith(this.chat.api.base);
      const link = make("a", { href: address.href, download: name, target: "_blank", rel: "noopener noreferrer nofollow" });
      if (type.startsWith("image/") && isOurs) link.append(this.#drawImage(address.href, name));
      else link.append(label);
      link.onclick = (event) => this.#download(event, address.href, name);
      return make("div", { className: "file", dir: "auto" }, link);
    }

    #drawImage(url, alt) {
      const image = make("img", { alt });
      image.onload = () => (this.log.scrollTop += this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 300 ? 300 : 0);
      if (!this.chat.needsToken(url)) image.src = url;
      else this.chat.fetchFile(url).then((address) => (image.src = address), () => {});
      return image;
    }

    async #download(event, url, name) {
      if (!this.chat.needsToken(url)) return;
      event.preventDefault();
      const address = await this.chat.fetchFile(url).catch(() => null);
      if (address) make("a", { href: address, download: name }).click();
    }

    #size(bytes) {
      const [unit, divisor] = bytes < 1e6 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
      return new Intl.NumberFormat(this.lang, { style: "unit", unit, maximumFractionDigits: 1 }).format(bytes / divisor);
    }

    #drawChoices({ text, detail }) {
      return make("div", { className: "choices", role: "group", "aria-label": text },
        ...detail.choices.map(({ value, label }) => {
          const button = make("button", { type: "button", dir: "auto" }, label);
          button.onclick = () => {
            this.chat.write({ text: label, block: detail.block, choice: value });
            this.input.focus();
          };
          return button;
        }));
    }

    #drawAnswers({ id, detail }) {
      const values = this.chat.answers.get(id)?.fields ?? detail.known ?? {};
      const given = Object.entries(values).filter(([name, value]) => name in FIELDS && value);
      return make("div", { className: "form" }, make("p", { className: "muted" }, this.texts.answered),
        make("dl", {}, ...given.flatMap(([name, value]) => [make("dt", {}, this.texts[name]), make("dd", { dir: "auto" }, value)])));
    }

    #drawForm(item) {
      const presence = this.chat.config.forms?.[item.detail.form] ?? { email: "required" };
      const names = Object.keys(FIELDS).filter((name) => (presence[name] ?? "removed") !== "removed");
      const fields = names.map((name) => this.#drawField(item, name, presence[name] === "required"));
      const problem = make("p", { className: "problem", role: "alert" });
      const submit = make("button", { type: "submit", className: "filled" }, this.texts.send);
      const form = make("form", { className: "form", noValidate: true }, ...fields, problem, submit);
      form.onsubmit = async (event) => {
        event.preventDefault();
        const inputs = [...form.querySelectorAll("input")];
        if (submit.disabled || this.#complain(form, this.#check(inputs))) return;
        submit.disabled = true;
        problem.textContent = "";
        try {
          await this.chat.submit(item, Object.fromEntries(inputs.map(({ name, value }) => [name, value.trim()])));
          this.input.focus();
        } catch (failure) {
          if (!this.#complain(form, this.#translate(failure.problems))) problem.textContent = this.texts.notSubmitted;
        }
        submit.disabled = false;
      };
      return form;
    }

    #drawField({ id: message, detail }, name, isRequired) {
      const id = `${name}-${message}`;
      const mark = isRequired ? make("span", { "aria-hidden": "true" }, " *") : make("span", { className: "muted" }, ` (${this.texts.optional})`);
      const value = detail.known?.[name] ?? "";
      return make("div", { className: "field" },
        make("label", { htmlFor: id }, this.texts[name], mark),
        make("input", { id, name, value, required: isRequired, "aria-describedby": `${id}-problem`, dir: "auto", ...FIELDS[name] }),
        make("p", { className: "problem", id: `${id}-problem` }));
    }

    #check(inputs) {
      const wrong = inputs.map(({ name, value, required }) => {
        const text = value.trim();
        if (!text) return [name, required && this.texts.required];
        if (name === "email") return [name, !/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(text) && this.texts.invalidEmail];
        return [name, name === "phone" && text.replace(/\D/g, "").length < 4 && this.texts.invalidPhone];
      });
      return Object.fromEntries(wrong.filter(([, problem]) => problem));
    }

    #translate(problems = {}) {
      const known = { required: "required", too_long: "tooLong" };
      const text = (name, { code, message }) =>
        this.texts[known[code]] ?? (code === "invalid" ? this.texts[{ email: "invalidEmail", phone: "invalidPhone" }[name] ?? "invalid"] : message);
      return Object.fromEntries(Object.entries(problems).map(([name, [first]]) => [name, text(name, first)]));
    }

    #complain(form, problems) {
      const wrong = [...form.querySelectorAll("input")].filter((input) => {
        input.ariaInvalid = input.name in problems ? "true" : null;
        input.parentNode.querySelector(".problem").textContent = problems[input.name] ?? "";
        return input.name in problems;
      });
      wrong[0]?.focus();
      return wrong.length > 0;
    }
  }

  const listeners = new Map();
  const past = new Map();
  const early = [];
  let chat = null;
  let element = null;

  function emit(event, value) {
    if (event === "ready") past.set(event, value);
    for (const listener of listeners.get(event) ?? []) {
      try {
        listener(value);
      } catch (error) {
        reportError(error); // the page's mistake must not stop the chat
      }
    }
  }

  function init(options) {
    if (chat || !options.channel) return undefined;
    const base = new URL(`widget/${encodeURIComponent(options.channel)}`, script.src).href;
    chat = new Chat(options.channel, base, options, emit);
    const loaded = chat.load(show);
    for (const [name, ...values] of early.splice(0)) COMMANDS[name](...values);
    return loaded.catch((failure) => emit("error", failure));
  }

  function show() {
    element = document.createElement("convsdk-chat");
    (document.body ?? document.documentElement).append(element);
    element.start(chat, chat.options);
  }

  const COMMANDS = {
    init,
    on(event, listener) {
      listeners.set(event, [...(listeners.get(event) ?? []), listener]);
      if (past.has(event)) listener(past.get(event));
    },
    visitor: () => chat?.session?.visitor ?? null,
    identify: (person) => chat.identify(person),
    reset: () => chat.reset(),
    consent: (isGiven) => chat.consent(isGiven === true),
    close: () => chat.close(),
    open() {
      // A page that opens the chat by itself, not by a visitor's click, is no reason for a cookie.
      chat.open({ byVisitor: Boolean(navigator.userActivation?.isActive) });
      element?.focusComposer();
    },
  };

  function run(name, ...values) {
    if (!Object.hasOwn(COMMANDS, name)) throw new TypeError(`convsdk: there is no command '${name}'`);
    if (chat || ["init", "on", "visitor"].includes(name)) return COMMANDS[name](...values);
    early.push([name, ...values]);
    return undefined;
  }

  if (customElements.get("convsdk-chat")) return;
  customElements.define("convsdk-chat", ConvsdkChat);
  const waiting = window.convsdk?.q ?? [];
  window.convsdk = run;
  for (const command of waiting) run(...command);
  if (script.dataset.channel) init({ ...script.dataset, keep: script.dataset.keep !== "false" });
})();
