"use strict";
// The page's side of the socket: see session.rs and message.rs for what goes over it.

const $ = (id) => document.getElementById(id);
const screen_ = $("screen"), field = $("field"), main = document.querySelector("main");
const context = screen_.getContext("2d", { alpha: false });
let socket = null, machine = { state: "connecting", absolute: true, name: "Dormer" };

const send = (message) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
};
const key = (code, down) => send({ t: "key", code, down });

// The connection, again and again until the machine is gone for good.

let wait = 500;
function connect() {
  const address = new URL("socket", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let drawn = Promise.resolve();
  const own = socket;
  own.onopen = () => {
    wait = 500;
    send({ t: "start", deflate: typeof DecompressionStream === "function" });
  };
  own.onmessage = ({ data }) => {
    if (typeof data === "string") return hear(JSON.parse(data));
    // One after the other, as they came; the answer asks for the next.
    drawn = drawn.then(() => draw(data)).then(() => {
      if (own === socket) send({ t: "ack" });
    }).catch((error) => { console.error(error); own.close(); });
  };
  own.onclose = () => {
    if (own !== socket) return;
    hear({ t: "state", ...machine, state: "no connection" });
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 5000);
  };
}

function hear(message) {
  if (message.t === "note") return note(message.text);
  if (message.t === "drive") return changed(message);
  if (message.t !== "state") return;
  machine = message;
  const lost = machine.state === "no connection";
  $("state").textContent = machine.state;
  $("state").className = lost ? "lost" : machine.state;
  $("name").textContent = machine.name;
  document.title = `${machine.name}${machine.state === "running" ? "" : ` (${machine.state})`}`;
  $("pause").textContent = machine.state === "running" ? "Pause" : "Continue";
  for (const button of document.querySelectorAll("nav button, .drive button")) button.disabled = lost;
  showDrives(machine.drives || []);
  if (lost) hideAnswers();
  if (machine.absolute && document.pointerLockElement) document.exitPointerLock();
}

let noteTimer = 0;
function note(text) {
  $("note").textContent = text;
  $("note").hidden = false;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => { $("note").hidden = true; }, 5000);
}

// Drives and what is in them: a form each, which stays as long as its drive does, so that nothing typed is lost.

const forms = new Map();
function showDrives(drives) {
  $("media").hidden = !drives.length;
  for (const [id, form] of forms) {
    if (drives.some((drive) => drive.id === id)) continue;
    form.remove();
    forms.delete(id);
  }
  for (const drive of drives) {
    const form = forms.get(drive.id) || newForm(drive.id);
    form.querySelector("strong").textContent = drive.name;
    const words = [drive.medium || "empty", drive.open && "tray open", drive.locked && "held by the guest"];
    form.querySelector(".inside").textContent = words.filter(Boolean).join(", ");
    const eject = form.querySelector(".eject");
    if (!drive.medium) eject.disabled = true;
  }
}
function newForm(id) {
  const form = $("drive").content.cloneNode(true).querySelector("form");
  const ask = (message) => {
    tell(form, "…", true);
    send({ drive: id, ...message });
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const path = form.querySelector("input").value.trim();
    path ? ask({ t: "insert", path }) : tell(form, "Type the path of an image first.", false);
  };
  form.querySelector(".eject").onclick = () => ask({ t: "eject" });
  $("list").append(form);
  forms.set(id, form);
  return form;
}
function tell(form, text, done) {
  const line = form.querySelector("p");
  line.textContent = text;
  line.className = done ? "" : "failed";
  line.hidden = false;
}
function changed({ id, done, text }) {
  const form = forms.get(id);
  if (!form) return note(text);
  tell(form, text, done);
  if (done) form.querySelector("input").value = "";
}
function hideAnswers() {
  for (const form of forms.values()) form.querySelector("p").hidden = true;
}
$("media").onclick = () => { hideAnswers(); $("drives").showModal(); };
$("close").onclick = () => $("drives").close();
$("drives").onclose = () => screen_.focus();

// The picture.

async function draw(data) {
  const view = new DataView(data);
  const count = view.getUint16(2, true), width = view.getUint16(4, true), height = view.getUint16(6, true);
  const start = 8 + count * 8;
  let pixels = data.slice(start);
  if (view.getUint8(1)) {
    const stream = new Blob([pixels]).stream().pipeThrough(new DecompressionStream("deflate"));
    pixels = await new Response(stream).arrayBuffer();
  }
  if (screen_.width !== width || screen_.height !== height) {
    screen_.width = width;
    screen_.height = height;
    fit();
  }
  let at = 0;
  for (let i = 0; i < count; i++) {
    const [x, y, w, h] = [0, 2, 4, 6].map((part) => view.getUint16(8 + i * 8 + part, true));
    context.putImageData(new ImageData(new Uint8ClampedArray(pixels, at, w * h * 4), w, h), x, y);
    at += w * h * 4;
  }
}

let one = false;
function fit() {
  main.classList.toggle("one", one);
  $("scale").setAttribute("aria-pressed", one);
  const ratio = window.devicePixelRatio || 1;
  let scale = 1 / ratio;
  if (!one) {
    scale = Math.min(main.clientWidth / screen_.width, main.clientHeight / screen_.height);
    // A whole number of device pixels for each of the guest's looks sharp; anything between is smoothed.
    const whole = Math.floor(scale * ratio);
    if (whole >= 1 && scale * ratio < whole * 1.15) scale = whole / ratio;
  }
  screen_.style.width = `${screen_.width * scale}px`;
  screen_.style.height = `${screen_.height * scale}px`;
  screen_.style.imageRendering = Number.isInteger(scale * ratio) ? "pixelated" : "auto";
}
new ResizeObserver(fit).observe(main);

// The keyboard: keys by their places, so that the guest's layout decides what they type.

const held = new Set();
function onKey(event) {
  if (event.target instanceof Element && event.target.closest("dialog, header, #field")) return;
  if (!event.code || event.isComposing) return;
  event.preventDefault();
  const down = event.type === "keydown";
  if (down && event.repeat) return;
  down ? held.add(event.code) : held.delete(event.code);
  key(event.code, down);
  // On a Mac, no key comes up while Command is held.
  if (!down && /^Meta/.test(event.code)) {
    for (const code of held) key(code, false);
    held.clear();
  }
}
addEventListener("keydown", onKey);
addEventListener("keyup", onKey);
function release() {
  held.clear();
  for (const button of document.querySelectorAll("[data-hold]")) button.setAttribute("aria-pressed", "false");
  send({ t: "release" });
}
addEventListener("blur", release);
document.addEventListener("visibilitychange", () => { if (document.hidden) release(); });

const press = (...codes) => {
  for (const code of codes) key(code, true);
  setTimeout(() => { for (const code of codes.reverse()) key(code, false); }, 60);
};

// The on-screen keyboard's field: phones tell texts, not keys.

const EMPTY = "\u200b\u200b";
const refill = () => { field.value = EMPTY; field.setSelectionRange(2, 2); };
const strokes = { Enter: "Enter", Backspace: "Backspace", Tab: "Tab", Escape: "Escape" };
field.addEventListener("focus", refill);
field.addEventListener("keydown", (event) => {
  const known = strokes[event.key] || (/^(Arrow|Page|Home|End|Delete|F\d)/.test(event.key) && event.key);
  if (known && !event.isComposing) {
    event.preventDefault();
    press(known);
    letGo();
  }
});
field.addEventListener("input", (event) => {
  if (event.isComposing) return;
  said();
});
field.addEventListener("compositionend", said);
function said() {
  const text = field.value.replaceAll("\u200b", "");
  if (text) {
    typeOrPress(text);
  } else if (field.value.length < EMPTY.length) {
    press("Backspace");
  }
  refill();
}
// With Ctrl and the like held, a letter is a key.
function typeOrPress(text) {
  const holding = document.querySelector("[data-hold][aria-pressed=true]");
  if (holding && /^[a-z0-9]$/i.test(text)) {
    press(/\d/.test(text) ? `Digit${text}` : `Key${text.toUpperCase()}`);
    letGo();
  } else {
    send({ t: "type", text });
  }
}
function letGo() {
  for (const button of document.querySelectorAll("[data-hold][aria-pressed=true]")) {
    button.setAttribute("aria-pressed", "false");
    setTimeout(() => key(button.dataset.hold, false), 120);
  }
}
for (const button of document.querySelectorAll("footer button")) {
  // Without taking the focus from the field, which would close the phone's keyboard.
  button.addEventListener("pointerdown", (event) => event.preventDefault());
  button.addEventListener("click", () => {
    if (button.dataset.code) {
      press(button.dataset.code);
      letGo();
    } else {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      key(button.dataset.hold, on);
    }
  });
}

// The pointer. A finger points and clicks; held down long it is the right button, two of them turn the wheel.

const scaled = (at, from, size) => Math.max(0, Math.min(0x7fff, Math.round((at - from) / Math.max(1, size - 1) * 0x7fff)));
function point(event) {
  if (document.pointerLockElement === screen_) {
    if (event.movementX || event.movementY) send({ t: "motion", x: event.movementX | 0, y: event.movementY | 0 });
    return;
  }
  const box = screen_.getBoundingClientRect();
  send({ t: "pointer", x: scaled(event.clientX, box.left, box.width), y: scaled(event.clientY, box.top, box.height) });
}
const button = (number, down) => send({ t: "button", button: number, down });

let latest = null, moving = 0;
function move(event) {
  if (document.pointerLockElement === screen_) return point(event);
  latest = event;
  if (!moving) moving = requestAnimationFrame(() => { moving = 0; if (latest) point(latest); latest = null; });
}
function settle() {
  if (moving) cancelAnimationFrame(moving);
  moving = 0;
  latest = null;
}

const fingers = new Map();
let gesture = null;
screen_.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  settle();
  if (event.pointerType === "touch") return fingerDown(event);
  screen_.focus({ preventScroll: true });
  try { screen_.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
  if (!machine.absolute && document.pointerLockElement !== screen_) {
    screen_.requestPointerLock();
    note("The pointer is the machine's; Esc gives it back.");
    return;
  }
  point(event);
  button(event.button, true);
});
screen_.addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch") return fingerMove(event);
  // Buttons beyond the first come as moves.
  if (event.button >= 0) {
    settle();
    point(event);
    const bit = [1, 4, 2, 8, 16][event.button];
    return button(event.button, Boolean(event.buttons & bit));
  }
  move(event);
});
screen_.addEventListener("pointerup", (event) => {
  if (event.pointerType === "touch") return fingerUp(event);
  settle();
  point(event);
  button(event.button, false);
});
screen_.addEventListener("pointercancel", (event) => {
  if (event.pointerType === "touch") return fingerUp(event, true);
  for (let n = 0; n < 5; n++) button(n, false);
});
screen_.addEventListener("contextmenu", (event) => event.preventDefault());

function fingerDown(event) {
  fingers.set(event.pointerId, event);
  if (fingers.size === 1) {
    gesture = { kind: "tap", start: event, timer: setTimeout(() => {
      point(event);
      button(2, true);
      button(2, false);
      gesture = { kind: "done" };
      if (navigator.vibrate) navigator.vibrate(20);
    }, 550) };
  } else {
    clearTimeout(gesture && gesture.timer);
    if (gesture && gesture.kind === "drag") button(0, false);
    gesture = { kind: "wheel", y: event.clientY, turned: 0 };
  }
}
function fingerMove(event) {
  if (!fingers.has(event.pointerId) || !gesture) return;
  fingers.set(event.pointerId, event);
  if (gesture.kind === "tap" && Math.hypot(event.clientX - gesture.start.clientX, event.clientY - gesture.start.clientY) > 12) {
    clearTimeout(gesture.timer);
    point(gesture.start);
    button(0, true);
    gesture = { kind: "drag" };
  }
  if (gesture.kind === "drag") move(event);
  if (gesture.kind === "wheel" && event.isPrimary) {
    gesture.turned += event.clientY - gesture.y;
    gesture.y = event.clientY;
    turn();
  }
}
function turn() {
  const steps = Math.trunc(gesture.turned / 24);
  if (steps) send({ t: "wheel", steps: Math.max(-20, Math.min(20, steps)) });
  gesture.turned -= steps * 24;
}
function fingerUp(event, cancelled) {
  if (!fingers.delete(event.pointerId) || !gesture) return;
  clearTimeout(gesture.timer);
  if (gesture.kind === "tap" && !cancelled) {
    point(event);
    button(0, true);
    setTimeout(() => button(0, false), 50);
  } else if (gesture.kind === "drag") {
    settle();
    point(event);
    button(0, false);
  }
  gesture = fingers.size ? { kind: "done" } : null;
}

let turned = 0;
screen_.addEventListener("wheel", (event) => {
  event.preventDefault();
  turned -= event.deltaY * [1, 33, 400][event.deltaMode];
  const steps = Math.trunc(turned / 100);
  if (steps) send({ t: "wheel", steps: Math.max(-20, Math.min(20, steps)) });
  turned -= steps * 100;
}, { passive: false });

// The buttons.

$("cad").onclick = () => press("ControlLeft", "AltLeft", "Delete");
$("scale").onclick = () => { one = !one; fit(); };
$("full").onclick = async () => {
  if (document.fullscreenElement) return document.exitFullscreen();
  await document.documentElement.requestFullscreen();
  // So that Esc and the system's keys reach the guest, where the browser lets them.
  if (navigator.keyboard && navigator.keyboard.lock) navigator.keyboard.lock().catch(() => {});
  screen_.focus();
};
if (!document.documentElement.requestFullscreen) $("full").hidden = true;
$("shot").onclick = () => screen_.toBlob((blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${machine.name}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
$("keyboard").onclick = () => {
  const hidden = !$("keys").hidden;
  $("keys").hidden = hidden;
  hidden ? screen_.focus() : field.focus();
};
$("pause").onclick = () => send({ t: "machine", action: machine.state === "running" ? "pause" : "resume" });
$("power").onclick = () => send({ t: "machine", action: "power" });
for (const [id, question] of [["reset", "Reset the machine? What is not saved is lost."], ["quit", "End the machine now? What is not saved is lost."]]) {
  $(id).onclick = () => { if (confirm(question)) send({ t: "machine", action: id }); };
}
$("type").onclick = () => { $("typing").showModal(); $("text").focus(); };
$("paste").onclick = async () => {
  try {
    $("text").value = await navigator.clipboard.readText();
  } catch {
    note("The browser does not give the clipboard to this page: paste into the field.");
  }
};
$("typing").onclose = () => {
  if ($("typing").returnValue === "send" && $("text").value) send({ t: "type", text: $("text").value });
  $("text").value = "";
  screen_.focus();
};
for (const one of document.querySelectorAll("nav button")) one.addEventListener("click", () => { if (document.activeElement === one) screen_.focus({ preventScroll: true }); });
// Text pasted onto the screen is typed.
addEventListener("paste", (event) => {
  if (event.target instanceof Element && event.target.closest("dialog, #field")) return;
  const text = event.clipboardData.getData("text/plain");
  if (text) send({ t: "type", text });
});

if (matchMedia("(pointer: coarse)").matches) $("keys").hidden = false;
connect();
screen_.focus();
