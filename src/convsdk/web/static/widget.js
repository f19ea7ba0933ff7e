/** The chat widget. docs/widget.md says how a page uses it. */
(() => {
  "use strict";

  const script = document.currentScript;
  const LINK = { target: "_blank", rel: "noopener noreferrer nofollow" };
  const READY_MS = 5_000; // a proxy that buffers lets no event through
  const SILENCE_MS = 45_000;
  const POLL_MS = 5_000;
  const HIDDEN_MS = 30_000;
  const TYPING_MS = 4_000;
  const isMobile = matchMedia("(max-width: 480px)");

  const TEXTS = {
    en: {
      open: "Open chat",
      close: "Close chat",
      unread: "Unread messages: {n}",
      messages: "Messages",
      earlier: "Show earlier messages",
      conversations: "Conversations",
      back: "Back to the current conversation",
      placeholder: "Write a message…",
      attach: "Attach a file",
      remove: "Remove {name}",
      send: "Send",
      sending: "Sending…",
      sent: "Sent",
      mail: "E-mail",
      failed: "Not sent",
      retry: "Try again",
      you: "You:",
      typing: "{name} is typing…",
      away: "Nobody is here right now. Please leave a message.",
      offline: "No connection. Messages are sent when it is back.",
      uploadFailed: "{name} could not be uploaded.",
      tooLarge: "{name} is larger than {size}.",
      wrongType: "Files such as {name} cannot be sent.",
      answered: "Answered",
      required: "Please fill this in.",
      invalid: "Please check this.",
      invalid_email: "Please enter an e-mail address.",
      invalid_phone: "Please enter a phone number.",
      email: "E-mail address",
      phone: "Phone number",
      account: "Company",
      name: "Name",
    },
    de: {
      open: "Chat öffnen",
      close: "Chat schließen",
      unread: "Ungelesene Nachrichten: {n}",
      messages: "Nachrichten",
      earlier: "Frühere Nachrichten zeigen",
      conversations: "Unterhaltungen",
      back: "Zurück zur aktuellen Unterhaltung",
      placeholder: "Nachricht schreiben…",
      attach: "Datei anhängen",
      remove: "{name} entfernen",
      send: "Senden",
      sending: "Wird gesendet…",
      sent: "Gesendet",
      mail: "E-Mail",
      failed: "Nicht gesendet",
      retry: "Erneut versuchen",
      you: "Sie:",
      typing: "{name} schreibt…",
      away: "Gerade ist niemand da. Bitte hinterlassen Sie eine Nachricht.",
      offline: "Keine Verbindung. Nachrichten werden später gesendet.",
      uploadFailed: "{name} konnte nicht hochgeladen werden.",
      tooLarge: "{name} ist größer als {size}.",
      wrongType: "Dateien wie {name} können nicht gesendet werden.",
      answered: "Beantwortet",
      required: "Bitte ausfüllen.",
      invalid: "Bitte prüfen Sie diese Angabe.",
      invalid_email: "Bitte geben Sie eine E-Mail-Adresse ein.",
      invalid_phone: "Bitte geben Sie eine Telefonnummer ein.",
      email: "E-Mail-Adresse",
      phone: "Telefonnummer",
      account: "Firma",
      name: "Name",
    },
  };

  const STYLES = `
    :host([hidden]), [hidden] { display: none !important; }
    * { box-sizing: border-box; margin: 0; padding: 0; font: inherit; color: inherit; list-style: none; }
    .root {
      all: initial;
      --surface: #fff; --text: #1b1d22; --muted: #596070; --line: #c9ced8; --bubble: #eef0f4; --bad: #b3261e;
      /* The y of XYZ is the luminance that contrast goes by: white below .18, black above. */
      --y: calc((.18 - y) * 1e4); --on-accent: color(from var(--accent) xyz var(--y) var(--y) var(--y));
      color: var(--text); color-scheme: light dark;
      font: 15px/1.45 system-ui, sans-serif;
    }
    @supports not (color: color(from red xyz x y z)) { .root { --on-accent: #fff; } }
    @media (prefers-color-scheme: dark) {
      .root {
        --surface: #1b1d22; --text: #eceef2; --muted: #a9b0bd; --line: #454b57; --bubble: #2b2f37; --bad: #ff9a92;
      }
    }
    button { border: 0; background: none; padding: 8px; border-radius: 8px; cursor: pointer; min-width: 36px; }
    button:disabled { cursor: default; }
    input, textarea { padding: 8px 10px; border: 1px solid var(--muted); border-radius: 8px; background: none; }
    ::placeholder { color: var(--muted); opacity: 1; }
    svg { display: block; width: 22px; height: 22px; margin: auto; fill: none; stroke: currentColor;
      stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
    [dir="rtl"] .send svg { transform: scaleX(-1); }
    :focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
    .filled { background: var(--accent); color: var(--on-accent); }
    .filled:focus-visible { outline-offset: -5px; }
    .unseen { position: absolute; clip-path: inset(50%); }

    .launcher, .dialog { position: fixed; z-index: 2147483000; inset-inline-end: 20px; box-shadow: 0 4px 24px #0004; }
    .launcher { bottom: 20px; width: 56px; height: 56px; border-radius: 50%; }
    .launcher svg { width: 28px; height: 28px; }
    .badge { position: absolute; top: -4px; inset-inline-end: -4px; min-width: 22px; padding: 0 6px;
      border-radius: 11px; background: #b3261e; color: #fff; font-size: 13px; line-height: 22px; text-align: center; }
    .dialog { bottom: 88px; width: 380px; max-width: calc(100vw - 40px);
      height: min(620px, 100dvh - 108px);
      display: flex; flex-direction: column; overflow: hidden; border-radius: 16px; background: var(--surface); }
    [data-position="left"] > * { inset-inline: auto; left: 20px; }
    [data-position="right"] > * { inset-inline: auto; right: 20px; }

    .minimise svg + svg { display: none; }
    .header { display: flex; align-items: center; gap: 4px; padding: 10px; padding-inline-start: 18px;
      background: var(--accent); color: var(--on-accent); }
    h2 { flex: 1; font-size: 17px; font-weight: 600; overflow-wrap: anywhere; }
    .notice:empty { display: none; }
    .notice { padding: 8px 18px; background: var(--bubble); font-size: 14px; }
    .conversations { flex: 1; padding: 8px; overflow-y: auto; }
    .conversations button { width: 100%; padding: 10px; text-align: start; }
    .conversations [aria-current] { background: var(--bubble); }
    .conversations p { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .log { flex: 1; padding: 12px 18px; overflow-y: auto; overscroll-behavior: contain; }
    .log:focus-visible { outline-offset: -3px; }
    .log > * { margin-bottom: 10px; }
    .day, .more, .author, .meta, .muted, .typing { color: var(--muted); font-size: 13px; }
    .day { text-align: center; }
    .day::first-letter { text-transform: uppercase; }
    .more { display: block; margin-inline: auto; text-decoration: underline; }
    .message { display: flex; flex-direction: column; align-items: flex-start; gap: 4px; }
    .visitor { align-items: flex-end; }
    .bubble { max-width: 85%; padding: 8px 12px; border-radius: 14px; background: var(--bubble);
      white-space: pre-wrap; overflow-wrap: anywhere; }
    .visitor .bubble { background: var(--accent); color: var(--on-accent); }
    .meta button { min-width: 0; padding: 0 4px; color: var(--bad); text-decoration: underline; }
    [data-name="failed"], .problem { color: var(--bad); }
    .file { max-width: 85%; overflow-wrap: anywhere; }
    .file img { display: block; width: 240px; max-width: 100%; height: 160px; object-fit: cover;
      border: 1px solid var(--line); border-radius: 12px; }
    .choices { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 4px; }
    .choices button { padding: 6px 14px; border: 1px solid var(--muted); border-radius: 18px; text-align: start; }
    .choices button:disabled { border-style: dashed; color: var(--muted); }
    .form { width: 100%; padding: 14px; border: 1px solid var(--line); border-radius: 14px; }
    .form label { display: block; margin-bottom: 4px; font-size: 14px; }
    .form input { width: 100%; }
    .form [aria-invalid="true"] { border: 2px solid var(--bad); }
    .form .field { margin-bottom: 12px; }
    .problem { margin-top: 6px; font-size: 14px; }
    .form p { overflow-wrap: anywhere; }
    .form .filled { width: 100%; }
    .typing { padding: 0 18px 6px; }

    .composer { border-top: 1px solid var(--line); padding: 8px; }
    .composer .row { display: flex; align-items: flex-end; gap: 4px; }
    textarea { flex: 1; min-width: 0; resize: none; }
    .files li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
    .files span { flex: 1; }
    .back { margin: 8px; }

    @media (max-width: 480px) {
      .root > .dialog { inset: 0; width: auto; max-width: none; height: 100dvh; border-radius: 0;
        padding-bottom: env(safe-area-inset-bottom); }
      .header { padding-top: max(10px, env(safe-area-inset-top)); }
      .dialog:not([hidden]) ~ .launcher, .minimise svg:first-child { display: none; }
      .minimise svg + svg { display: block; }
      input, textarea { font-size: 16px; }
    }
    @media (prefers-reduced-motion: no-preference) {
      .dialog { animation: rise .16s ease-out; }
      @keyframes rise { from { opacity: 0; translate: 0 12px; } }
    }
    @media (forced-colors: active) { .launcher, .dialog, .bubble, .filled { border: 1px solid; } }
  `;

  const FIELDS = {
    email: { type: "email", autocomplete: "email" },
    phone: { type: "tel", autocomplete: "tel", pattern: ".*\\d.*\\d.*\\d.*" },
    account: { type: "text", autocomplete: "organization" },
    name: { type: "text", autocomplete: "name" },
  };

  const ICONS = {
    chat: "M4 5h16v11H10l-5 4v-4H4z",
    down: "M5 9l7 7 7-7",
    cross: "M6 6l12 12M18 6L6 18",
    list: "M4 6h16M4 12h16M4 18h16",
    clip: "M17 7v9a5 5 0 0 1-10 0V6a3 3 0 0 1 6 0v9",
    send: "M4 4l17 8-17 8 3-8zM7 12h14",
  };

  function make(tagged, properties = {}, ...children) {
    const [tag, className] = tagged.split(".");
    const element = document.createElement(tag);
    if (className) element.className = className;
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else if (value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  function button(className, onclick, label, ...children) {
    const properties = { type: "button", onclick, "aria-label": children.length ? label : null };
    return make(`button.${className}`, properties, ...(children.length ? children : [label]));
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

  /** What is in its place already is not touched: it may have the focus. */
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
      return make("a", { ...LINK, href: part }, part);
    });
  }

  function randomId() {
    return crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID is missing on pages without TLS
  }

  function backoff(failures) {
    return Math.min(60_000, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
  }

  /** Status 0: there was no answer. -1: the answer is about a session that is over. */
  class Failure extends Error {
    constructor(status, answer, retryAfter = 0) {
      super(answer?.error?.message ?? `the chat's server gave status ${status}`);
      this.status = status;
      this.code = answer?.error?.code ?? "unreachable";
      this.problems = answer?.problems;
      this.retryAfterMs = retryAfter * 1000;
    }

    get isFinal() {
      return this.status >= 400 && this.status < 500 && ![401, 408, 429].includes(this.status);
    }
  }

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
      const values = Store.NAMES.map((name) => this.read(name));
      if (!isKept) Store.NAMES.forEach((name) => this.write(name, null));
      this.isKept = isKept;
      Store.NAMES.forEach((name, index) => values[index] && this.write(name, values[index]));
    }
  }

  class Api {
    constructor(base, store) {
      this.base = base;
      this.store = store;
      this.isReachable = true;
      this.life = {};
    }

    async send(method, path, { body, signal } = {}) {
      const token = this.store.read("token");
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const options = { method, headers, body, signal, credentials: "include", cache: "no-store" };
      const response = await fetch(this.base + path, options).catch(() => null);
      if (response || !signal?.aborted) this.isReachable = Boolean(response);
      if (response?.ok) return response;
      const answer = await response?.json().catch(() => null);
      throw new Failure(response?.status ?? 0, answer, Number(response?.headers.get("Retry-After")) || 0);
    }

    async json(method, path, value) {
      const { life } = this;
      const body = value && new Blob([JSON.stringify(value)], { type: "application/json" });
      const response = await this.send(method, path, { body, signal: AbortSignal.timeout(20_000) });
      const answer = response.status === 204 ? null : await response.json().catch(() => undefined);
      if (life !== this.life) throw new Failure(-1);
      if (answer === undefined) throw new Failure(0);
      return answer;
    }
  }

  class Live {
    constructor(api, hear) {
      this.api = api;
      this.hear = hear;
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

    watchVisibility() {
      clearTimeout(this.hiding);
      // Browsers allow six connections to a host: hidden tabs take none.
      if (document.hidden) this.hiding = setTimeout(() => this.stream?.abort(), HIDDEN_MS);
      else this.wake();
    }
  }

  class Chat {
    constructor(channel, base, options, emit) {
      this.options = options;
      this.emit = emit;
      this.onchange = () => {};
      this.onend = () => {};
      this.isKept = options.keep !== false;
      this.store = new Store(channel, this.isKept);
      this.api = new Api(base, this.store);
      this.live = new Live(this.api, (event, data) => this.#hear(event, data));
      this.person = null;
      this.isOpen = false;
      this.isStale = true;
      this.sendAfter = 0;
      this.failures = 0;
      this.toldUnread = 0;
      this.#clear();
      addEventListener("storage", (event) => this.#follow(event));
      addEventListener("online", () => this.#hurry());
      addEventListener("offline", () => this.#tell({ isOffline: true }));
      document.addEventListener("visibilitychange", () => {
        this.live.watchVisibility();
        if (!document.hidden) this.settle();
      });
    }

    #clear() {
      this.session = null;
      this.conversations = [];
      this.unread = 0;
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

    load(show) {
      this.show = show;
      return this.settle();
    }

    async #load() {
      const isFirst = !this.config;
      this.config = await this.api.json("GET", "");
      this.isStale = false;
      this.hasAgents = this.config.has_agents;
      if (!this.config.session) this.#forgetToken();
      this.#adopt(this.config.session);
      if (!isFirst) return;
      this.isSessionKept = true;
      this.isOpen ||= this.session ? Boolean(this.store.read("open")) : this.options.is_open === true;
      this.#requeue((queue) => queue.filter((item) => item.state !== "sent"));
      this.show();
      this.emit("ready", { visitor: this.session?.visitor ?? null });
    }

    get queue() {
      return this.store.read("queue") ?? [];
    }

    #requeue(change) {
      const queue = change(this.queue);
      this.store.write("queue", queue.length ? queue : null);
      this.onchange();
    }

    get items() {
      return [...this.messages.values(), ...(this.view ? [] : this.queue)];
    }

    get question() {
      const block = this.expects?.block;
      const isAnswered = this.queue.some((item) => item.block === block && item.state !== "failed");
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
      const item = { client_id: randomId(), sender: "visitor", at: new Date().toISOString(), state: "sending" };
      this.#requeue((queue) => [...queue, { ...item, text, attachments, block: block ?? expected, choice }]);
      return this.settle();
    }

    #mark(id, state) {
      this.#requeue((queue) => queue.map((item) => (item.client_id === id ? { ...item, state } : item)));
    }

    retry(id) {
      this.#mark(id, "sending");
      return this.settle();
    }

    async submit(message, fields) {
      const { form, block } = message.detail;
      // One id for all tries: the answer to the first may have been lost.
      const answer = this.answers.get(message.id) ?? { id: randomId() };
      this.answers.set(message.id, answer);
      const accepted = await this.api.json("POST", "/forms", { id: answer.id, form, block, fields });
      answer.fields = fields;
      this.#adopt(accepted.session);
      await this.settle();
    }

    async upload(file) {
      if (!this.session) {
        this.mustBegin = true;
        await this.settle();
      }
      return (await this.api.send("POST", `/files?name=${encodeURIComponent(file.name)}`, { body: file })).json();
    }

    async fetchFile(url) {
      return URL.createObjectURL(await (await this.api.send("GET", url.slice(this.api.base.length))).blob());
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
      const mayExist = this.session || this.settling || !this.config;
      this.isOpening = false;
      this.mustBegin = false;
      this.#forget();
      this.onend();
      // Without a connection the cookie outlives the log-out.
      if (mayExist) this.store.write("ended", true);
    }

    #forget() {
      this.api.life = {};
      this.#clear();
      this.live.run(false);
      for (const name of ["visitor", "open", "queue"]) this.store.write(name, null);
      this.onchange();
    }

    #adopt(session) {
      if (this.store.read("ended")) session = null;
      const kept = this.store.read("visitor");
      const known = this.session?.visitor ?? kept;
      if (known && known !== session?.visitor) {
        // Where nobody logged out, it has expired: what was not sent stays.
        const unsent = !session && this.session && kept ? this.queue.map((item) => ({ ...item, state: "failed" })) : [];
        this.#forget();
        this.#requeue(() => unsent);
        if (!session && !unsent.length) this.onend();
      }
      if (!session) return;
      if (!this.session) this.unread = session.unread;
      this.session = session;
      this.store.write("visitor", session.visitor);
      this.store.write("open", this.isOpen || this.store.read("open") || null);
      if (session.token) this.store.write("token", session.token);
    }

    /** All that is to be done is done here, in one order. */
    settle() {
      this.isDue = true;
      this.settling ??= this.#settle().finally(() => {
        this.settling = null;
      });
      return this.settling;
    }

    async #settle() {
      await null; // all that the page says in one go comes first
      while (this.isDue) {
        this.isDue = false;
        try {
          await this.#work();
          this.failures = 0;
        } catch (failure) {
          this.#cope(failure);
        }
      }
      clearTimeout(this.timer);
      const wait = this.sendAfter - Date.now();
      if (wait > 0) this.timer = setTimeout(() => this.settle(), wait + 1);
      this.live.run(Boolean(this.session && (this.isOpen || this.session.conversation || this.messages.size)));
      if (this.unread !== this.toldUnread) this.emit("unread", (this.toldUnread = this.unread));
      this.#tell({ isOffline: !this.api.isReachable });
    }

    async #work() {
      if (this.isStale) await this.#load();
      const wasReachable = this.api.isReachable;
      // What cannot be sent must not keep from reading.
      const failure = Date.now() < this.sendAfter ? null : await this.#send().catch((error) => error);
      if (this.session) await this.#fetchMessages();
      if (!wasReachable && this.api.isReachable) this.#hurry();
      if (this.session && this.unread && this.isOpen && !document.hidden) await this.#see();
      if (failure) throw failure;
    }

    #cope(failure) {
      if (!(failure instanceof Failure)) throw failure;
      if (failure.status === 401) this.isStale = true;
      if (failure.isFinal) this.emit("error", failure);
      else if (failure.status >= 0) this.#postpone(failure);
    }

    #postpone(failure) {
      this.sendAfter = Date.now() + (failure.retryAfterMs || backoff(this.failures));
      this.failures += 1;
    }

    #hurry() {
      this.sendAfter = 0;
      this.failures = 0;
      this.live.wake();
      this.settle();
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
        if (!failure.isFinal) throw failure;
      });
      this.#forgetToken();
    }

    #forgetToken() {
      this.store.write("token", null);
      this.store.write("ended", null);
    }

    get #nextToSend() {
      return this.queue.find((item) => item.state === "sending");
    }

    async #begin() {
      const isOpening = Boolean(this.isOpening);
      const isWanted = this.mustBegin || this.#nextToSend;
      const isMissing = !this.session || (this.isKept && !this.isSessionKept);
      if (!isOpening && !(isWanted && isMissing)) return;
      this.isSessionKept = this.isKept;
      const session = await this.api.json("POST", "/session", { is_open: isOpening, keep: this.isKept });
      if (!session.token) this.store.write("token", null); // there is a cookie now
      this.#adopt(session);
      this.mustBegin = false;
      if (isOpening) this.isOpening = false;
    }

    async #sendQueue() {
      for (let item; (item = this.#nextToSend); ) {
        const { client_id: id, text, attachments, block, choice } = item;
        try {
          const ids = attachments.map((file) => file.id);
          const answer = await this.api.json("POST", "/messages", { id, text, attachments: ids, block, choice });
          this.#mark(id, "sent");
          this.#adopt(answer.session);
        } catch (failure) {
          this.#refuse(failure);
          this.#mark(id, "failed");
        }
      }
    }

    #refuse(failure) {
      if (failure instanceof Failure && !failure.isFinal) throw failure;
      this.emit("error", failure);
    }

    async #sendPerson() {
      const { person } = this;
      if (!person) return;
      person.id ??= randomId();
      try {
        const token = typeof person.token === "function" ? await person.token(this.session.visitor) : person.token;
        const proof = Object(token) === token ? { token: undefined, ...token } : { token };
        this.#adopt(await this.api.json("POST", "/identity", { ...person, ...proof }));
        this.emit("identified", { visitor: this.session.visitor, is_proven: this.session.is_proven });
      } catch (failure) {
        this.#refuse(failure);
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
        if (this.isLoaded && message.sender !== "visitor") this.#receive(message);
      }
      const arrived = new Set(answer.messages.map((message) => message.client_id));
      this.#requeue((queue) => queue.filter((item) => !arrived.has(item.client_id)));
      this.conversation = answer.conversation;
      this.expects = answer.expects;
      this.hasAgents = answer.has_agents;
      if (!after) this.hasEarlier = answer.has_more;
      this.isLoaded = true;
    }

    #receive(message) {
      this.unread += 1;
      this.emit("message", message);
    }

    async #see() {
      const message = [...this.messages.keys()].at(-1);
      if (message) await this.api.json("POST", "/seen", { conversation: this.conversation, message });
      this.unread = 0;
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
      this.typing = null;
      await this.settle();
      if (!conversation || conversation === this.conversation) return;
      this.#reload();
      await this.#loadConversations();
    }

    #hearTyping({ conversation, by, is_typing: isTyping }) {
      if (conversation !== this.conversation) return;
      clearTimeout(this.forgetting);
      this.forgetting = setTimeout(() => this.#tell({ typing: null }), 3 * TYPING_MS);
      this.#tell({ typing: isTyping ? { by } : null });
    }

    #reload() {
      this.isStale = true;
      this.settle();
    }

    #follow({ key, newValue }) {
      const name = key?.slice(this.store.prefix.length);
      if (!this.config || !this.store.isKept || (key !== null && key !== this.store.prefix + name)) return;
      if (name === "open" && Boolean(newValue) !== this.isOpen) {
        this.#tell({ isOpen: Boolean(newValue) });
        this.settle();
      }
      if (name === "queue") {
        this.onchange();
        setTimeout(() => this.settle(), POLL_MS); // that tab may be gone
      }
      if (key === null || name === "visitor") this.#reload();
    }
  }

  class ConvsdkChat extends HTMLElement {
    #rows = new Map();
    #files = [];

    start(chat, { lang, dir, texts = {}, color, position }) {
      const wanted = lang || document.documentElement.lang || navigator.language;
      const builtIn = TEXTS[wanted.split("-")[0].toLowerCase()];
      this.chat = chat;
      this.texts = { ...TEXTS.en, ...builtIn, ...texts };
      this.lang = builtIn || Object.keys(texts).length ? wanted : "en";
      this.attachShadow({ mode: "open" });
      this.#build(dir || (/^(ar|fa|he|ur|yi)\b/i.test(this.lang) ? "rtl" : "ltr"), position);
      this.#paint(CSS.supports("color", color) ? color : chat.config.color);
      chat.onchange = () => this.#renderSoon();
      chat.onend = () => {
        this.#files = [];
        this.input.value = "";
      };
      isMobile.addEventListener("change", chat.onchange);
      this.#render();
    }

    #text(name, values) {
      return this.texts[name].replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
    }

    #time(moment, options) {
      return new Date(moment).toLocaleString(this.lang, options);
    }

    #day(moment) {
      const midnight = (date) => new Date(date).setHours(0, 0, 0, 0);
      const days = Math.round((midnight(moment) - midnight(Date.now())) / 86_400_000);
      if (days > -2) return new Intl.RelativeTimeFormat(this.lang, { numeric: "auto" }).format(days, "day");
      return this.#time(moment, { dateStyle: "full" });
    }

    #paint(color) {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(`${STYLES} .root { --accent: ${CSS.supports("color", color) ? color : "#1f5fd0"}; }`);
      this.shadowRoot.adoptedStyleSheets = [sheet];
    }

    #build(dir, position) {
      this.badge = make("span.badge");
      this.launcher = button("launcher filled", () => this.#toggle(!this.chat.isOpen), null, icon("chat"), this.badge);
      this.menu = button("menu", () => this.#toggleMenu(this.list.hidden), this.texts.conversations, icon("list"));
      this.minimise = button("minimise", () => this.#toggle(false), this.texts.close, icon("down"), icon("cross"));
      this.notice = make("p.notice", { role: "status" });
      this.list = make("ul.conversations", { hidden: true, tabIndex: -1 });
      const live = { role: "log", "aria-live": "polite", "aria-label": this.texts.messages };
      this.log = make("div.log", { ...live, tabIndex: 0 });
      this.typing = make("p.typing", { role: "status" });
      this.back = button("back filled", () => this.#choose({ is_current: true }), this.texts.back);
      const heading = make("h2", { id: "title" }, this.chat.config.title || "Chat");
      this.dialog = make("section.dialog", { role: "dialog", "aria-labelledby": "title" },
        make("div.header", {}, heading, this.menu, this.minimise),
        this.notice, this.list, this.log, this.typing, this.back, this.#buildComposer());
      this.dialog.onkeydown = (event) => this.#press(event);
      const root = make("div.root", { dir, lang: this.lang, "data-position": position }, this.dialog, this.launcher);
      this.shadowRoot.append(root);
    }

    #buildComposer() {
      const { max_bytes: most, types = [] } = this.chat.config.attachments ?? {};
      const { placeholder } = this.texts;
      const label = { placeholder, "aria-label": placeholder };
      this.input = make("textarea", { ...label, rows: 1, maxLength: 10_000, dir: "auto" });
      this.input.oninput = () => this.#typed();
      this.input.onkeydown = (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#send(event);
      };
      this.chips = make("ul.files");
      this.picker = make("input", { type: "file", multiple: true, hidden: true, accept: types.join() });
      this.picker.onchange = () => this.#attach();
      const attach = button("attach", () => this.picker.click(), this.texts.attach, icon("clip"));
      attach.hidden = !most;
      this.sendButton = make("button.send", { "aria-label": this.texts.send }, icon("send"));
      this.composer = make("form.composer", { onsubmit: (event) => this.#send(event) }, this.chips,
        make("div.row", {}, attach, this.picker, this.input, this.sendButton));
      return this.composer;
    }

    #toggle(isOpen) {
      if (isOpen) this.chat.open({ byVisitor: true });
      else this.chat.close();
      this.showFocused(isOpen ? this.input : this.launcher);
    }

    showFocused(element = this.input) {
      this.#render();
      element.focus();
    }

    #press(event) {
      if (event.key === "Tab" && isMobile.matches) this.#trap(event);
      if (event.key !== "Escape") return;
      event.stopPropagation();
      if (this.list.hidden) this.#toggle(false);
      else this.#toggleMenu(false);
    }

    #trap(event) {
      const all = [...this.dialog.querySelectorAll("button, input, textarea, a[href], [tabindex]")];
      const reachable = all.filter((element) => !element.disabled && element.getClientRects().length);
      const [from, to] = event.shiftKey ? [0, -1] : [-1, 0];
      if (this.shadowRoot.activeElement !== reachable.at(from)) return;
      event.preventDefault();
      reachable.at(to).focus();
    }

    #toggleMenu(isOpen) {
      this.list.hidden = !isOpen;
      this.showFocused(isOpen ? this.list : this.menu);
    }

    #choose(conversation) {
      this.list.hidden = true;
      this.chat.choose(conversation);
      this.showFocused(conversation.is_current ? this.input : this.log);
    }

    #typed() {
      const { input } = this;
      for (input.rows = 1; input.rows < 6 && input.scrollHeight > input.clientHeight; ) input.rows += 1;
      const isTyping = input.value !== "";
      if (isTyping && Date.now() < this.typedAt + TYPING_MS) return;
      this.typedAt = isTyping ? Date.now() : 0;
      this.chat.sendTyping(isTyping);
    }

    #send(event) {
      event.preventDefault();
      const text = this.input.value.trim();
      const attachments = this.#files.map((entry) => entry.attachment).filter(Boolean);
      if (this.sendButton.disabled || !(text || attachments.length)) return;
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
      entry.isUploading = !entry.problem;
      this.#files.push(entry);
      this.#render();
      if (entry.problem) return;
      entry.attachment = await this.chat.upload(file).catch(() => null);
      entry.isUploading = false;
      if (!entry.attachment) entry.problem = this.#text("uploadFailed", file);
      this.#render();
    }

    #refusal({ name, size, type }) {
      const { max_bytes: most, types } = this.chat.config.attachments;
      if (size > most) return this.#text("tooLarge", { name, size: `${Math.floor(most / 1e5) / 10} MB` });
      const isAllowed = types.some((allowed) => type.startsWith(allowed.replace("*", "")));
      return isAllowed ? null : this.#text("wrongType", { name });
    }

    #renderSoon() {
      if (!this.isScheduled) queueMicrotask(() => this.#render());
      this.isScheduled = true;
    }

    #render() {
      const { isOpen, unread } = this.chat;
      this.isScheduled = false;
      this.badge.hidden = !unread || isOpen;
      this.badge.textContent = unread > 99 ? "99+" : unread;
      const news = this.badge.hidden ? "" : `. ${this.#text("unread", { n: unread })}`;
      this.launcher.setAttribute("aria-label", isOpen ? this.texts.close : this.texts.open + news);
      this.launcher.setAttribute("aria-expanded", isOpen);
      this.dialog.hidden = !isOpen;
      if (isOpen) this.#renderDialog();
    }

    #renderDialog() {
      const { chat, texts, list } = this;
      this.dialog.ariaModal = isMobile.matches ? "true" : null;
      this.menu.hidden = chat.conversations.length < 2;
      this.menu.setAttribute("aria-expanded", !list.hidden);
      this.notice.textContent = chat.isOffline ? texts.offline : chat.hasAgents ? "" : texts.away;
      this.log.hidden = !list.hidden;
      this.composer.hidden = !list.hidden || chat.view !== null;
      this.back.hidden = chat.view === null;
      this.typing.textContent = chat.typing ? this.#text("typing", { name: chat.typing.by }) : "";
      if (!list.hidden) list.replaceChildren(...chat.conversations.map((one) => this.#drawConversation(one)));
      this.chips.replaceChildren(...this.#files.map((entry) => this.#drawChip(entry)));
      this.sendButton.disabled = this.#files.some((entry) => entry.isUploading);
      this.#renderLog();
    }

    #drawConversation(conversation) {
      const { id, subject, last, last_at: at } = conversation;
      const node = button("", () => this.#choose(conversation), null,
        make("p", { dir: "auto" }, subject || this.chat.config.title),
        make("p.muted", { dir: "auto" }, `${this.#day(at)} · ${last}`));
      if (id === (this.chat.view ?? this.chat.conversation)) node.setAttribute("aria-current", "true");
      return make("li", {}, node);
    }

    #drawChip(entry) {
      const remove = button("", () => {
        this.#files = this.#files.filter((one) => one !== entry);
        this.showFocused();
      }, this.#text("remove", entry), icon("cross"));
      return make(entry.problem ? "li.problem" : "li", {},
        make("span", { role: entry.problem ? "alert" : null }, entry.problem ?? entry.name),
        entry.isUploading ? make("progress", { "aria-label": entry.name }) : null, remove);
    }

    #renderLog() {
      const { log, chat } = this;
      const { question, items } = chat;
      const { greeting } = chat.config;
      const rows = [];
      const showEarlier = () => chat.showEarlier().catch(() => {});
      if (chat.hasEarlier) rows.push(this.#row("earlier", () => button("more", showEarlier, this.texts.earlier)));
      else if (!chat.view && greeting) rows.push(this.#row("greeting", () => this.#drawBubble("bot", greeting)));
      items.forEach((item, index) => {
        const day = this.#day(item.at);
        const dayRow = this.#row(`day ${day}`, () => make("div.day", {}, day));
        if (!rows.includes(dayRow)) rows.push(dayRow);
        const isAsked = item === question;
        const isDrawnAnew = item.detail?.form ? isAsked || chat.answers.get(item.id)?.fields : item.attachments.length && item.state;
        const key = `${item.client_id ?? item.id} ${isDrawnAnew}`;
        const row = this.#row(key, () => this.#drawMessage(item, isAsked));
        this.#refresh(row, item, { isAsked, next: items[index + 1] });
        rows.push(row);
      });
      const toEnd = log.scrollHeight - log.scrollTop;
      const isNewLast = rows.at(-1) !== this.lastRow;
      const wasAtEnd = toEnd - log.clientHeight < 150;
      arrange(log, rows);
      log.ariaBusy = String(Boolean(chat.session) && !chat.isLoaded);
      if (wasAtEnd || !this.lastRow) log.scrollTop = log.scrollHeight;
      else if (!isNewLast) log.scrollTop = log.scrollHeight - toEnd;
      this.lastRow = items.length ? rows.at(-1) : null;
    }

    #row(key, draw) {
      if (!this.#rows.has(key)) this.#rows.set(key, draw());
      return this.#rows.get(key);
    }

    #drawBubble(sender, text) {
      return make(`div.message ${sender}`, {}, text ? make("div.bubble", { dir: "auto" }, ...linked(text)) : null);
    }

    #drawMessage(item, isAsked) {
      const { sender, by, text, detail, at, attachments } = item;
      const node = this.#drawBubble(sender, text);
      if (sender === "visitor") node.prepend(make("span.unseen", {}, this.texts.you));
      else if (by) node.prepend(make("span.author", { dir: "auto" }, by));
      node.append(...attachments.map((file) => this.#drawFile(file)));
      if (detail?.choices) node.append(this.#drawChoices(item));
      if (detail?.form) node.append(isAsked ? this.#drawForm(item) : this.#drawAnswers(item));
      const time = make("time", { dateTime: at }, this.#time(at, { timeStyle: "short" }));
      node.append(make("div.meta", {}, time, item.is_mail ? ` · ${this.texts.mail}` : null, make("span.state")));
      return node;
    }

    /** Drawn anew, it would be read out again. */
    #refresh(node, item, { isAsked, next }) {
      for (const choice of node.querySelectorAll(".choices button")) choice.disabled = !isAsked;
      if (item.sender !== "visitor") return;
      const state = node.querySelector(".state");
      const name = item.state ?? (next ? "" : "sent");
      if (state.dataset.name === name) return;
      state.dataset.name = name;
      state.replaceChildren(name && ` · ${this.texts[name]} `);
      if (name === "failed") state.append(this.#drawRetry(item));
    }

    #drawRetry({ client_id: id }) {
      return button("", () => {
        this.chat.retry(id);
        this.input.focus();
      }, this.texts.retry);
    }

    #drawFile({ name, media_type: type, url }) {
      const { href, protocol } = new URL(url || "about:blank", script.src);
      if (!/^https?:$/.test(protocol)) return make("div.file", {}, name);
      const link = make("a", { ...LINK, href, download: name }, name);
      // The token must not go to other hosts, and an image there would tell who reads.
      if (href.startsWith(this.chat.api.base)) this.#fetchFile(link, type);
      return make("div.file", { dir: "auto" }, link);
    }

    /** A plain `href` or `src` cannot carry the token. */
    #fetchFile(link, type) {
      const { href, download: alt } = link;
      const load = async () => (link.href = await this.chat.fetchFile(href));
      if (type.startsWith("image/")) {
        link.replaceChildren(make("img", { alt }));
        load().then((src) => (link.firstChild.src = src), () => {});
      } else link.onclick = async (event) => {
        if (link.href !== href) return;
        event.preventDefault();
        await load();
        link.click();
      };
    }

    #drawChoices({ text, detail }) {
      const choices = detail.choices.map(({ value, label }) => button("", () => {
        this.chat.write({ text: label, block: detail.block, choice: value });
        this.input.focus();
      }, label));
      return make("div.choices", { role: "group", "aria-label": text, dir: "auto" }, ...choices);
    }

    #drawAnswers({ id, detail }) {
      const values = this.chat.answers.get(id)?.fields ?? detail.known ?? {};
      const given = Object.keys(FIELDS).map((name) => make("p", { dir: "auto" }, values[name] ?? ""));
      return make("div.form", {}, make("p.muted", {}, this.texts.answered), ...given);
    }

    #drawForm(item) {
      const presence = this.chat.config.forms?.[item.detail.form] ?? { email: "required" };
      const names = Object.keys(FIELDS).filter((name) => /required|optional/.test(presence[name]));
      const fields = names.map((name) => this.#drawField(item, name, presence[name] === "required"));
      const problem = make("p.problem", { role: "alert" });
      const submit = make("button.filled", {}, this.texts.send);
      const onsubmit = async (event) => {
        event.preventDefault();
        const inputs = fields.map((field) => field.querySelector("input"));
        if (submit.disabled || this.#complain(inputs, this.#check(inputs))) return;
        submit.disabled = true;
        problem.textContent = "";
        try {
          await this.chat.submit(item, Object.fromEntries(inputs.map(({ name, value }) => [name, value.trim()])));
          this.input.focus();
        } catch (failure) {
          if (!this.#complain(inputs, failure.problems)) problem.textContent = this.texts.failed;
        }
        submit.disabled = false;
      };
      return make("form.form", { noValidate: true, onsubmit }, ...fields, problem, submit);
    }

    #drawField({ id: message, detail }, name, required) {
      const id = `${name}-${message}`;
      const value = detail.known?.[name] ?? "";
      const mark = required ? make("span", { "aria-hidden": "true" }, " *") : null;
      const properties = { ...FIELDS[name], inputMode: FIELDS[name].type, dir: "auto", id, name, required, value };
      return make("div.field", {},
        make("label", { htmlFor: id }, this.texts[name], mark),
        make("input", { ...properties, "aria-describedby": `${id}-problem` }),
        make("p.problem", { id: `${id}-problem` }));
    }

    #check(inputs) {
      const wrong = inputs.filter((input) => !input.validity.valid);
      const code = ({ validity }) => (validity.valueMissing ? "required" : "invalid");
      return Object.fromEntries(wrong.map((input) => [input.name, [{ code: code(input) }]]));
    }

    #complain(inputs, problems = {}) {
      const wrong = inputs.filter((input) => {
        const code = problems[input.name]?.[0].code;
        input.ariaInvalid = code ? "true" : null;
        input.parentNode.lastChild.textContent =
          code && (this.texts[code === "required" ? code : `invalid_${input.name}`] ?? this.texts.invalid);
        return code;
      });
      wrong[0]?.focus();
      return wrong.length > 0;
    }
  }

  const listeners = new Map();
  const early = [];
  let ready = null;
  let chat = null;
  let element = null;

  function emit(event, value) {
    if (event === "ready") ready = value;
    if (event === "error") console.error(value);
    // A page's mistake must not stop the chat.
    for (const listener of listeners.get(event) ?? []) queueMicrotask(() => listener(value));
  }

  function init(options) {
    if (chat || !options.channel) return undefined;
    const base = new URL(`widget/${encodeURIComponent(options.channel)}`, script.src).href;
    chat = new Chat(options.channel, base, options, emit);
    for (const command of early) run(...command);
    return chat.load(show);
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
      if (event === "ready" && ready) listener(ready);
    },
    visitor: () => chat?.session?.visitor ?? null,
    identify: (person) => chat.identify(person),
    consent: (isGiven) => chat.consent(isGiven === true),
    close: () => chat.close(),
    reset: () => chat.reset(),
    open() {
      // A page that opens the chat itself is no reason for a cookie.
      chat.open({ byVisitor: Boolean(navigator.userActivation?.isActive) });
      element?.showFocused();
    },
  };

  function run(name, ...values) {
    if (!(name in COMMANDS)) throw new TypeError(`convsdk has no command '${name}'`);
    const mustWait = !chat && !["init", "on", "visitor"].includes(name);
    return mustWait ? void early.push([name, ...values]) : COMMANDS[name](...values);
  }

  if (customElements.get("convsdk-chat")) return;
  customElements.define("convsdk-chat", ConvsdkChat);
  const waiting = window.convsdk?.q ?? [];
  window.convsdk = run;
  for (const command of waiting) queueMicrotask(() => run(...command)); // one mistake stops no other
  if (script.dataset.channel) init({ ...script.dataset, keep: script.dataset.keep !== "false" });
})();
