
// --- the connection ---

let [mode, stream, shown, next] = ["connecting", null, null, null];
let [heard, asked, asking, streamAt] = [0, Date.now(), false, 0];

function enter(how) {
  mode = how;
  const [text, hue, icon] = LINK[mode];
  put(byId("link-text"), text);
  tone(byId("link"), hue);
  setIcon(byId("link").querySelector(".icon"), icon);
  byId("lost").hidden = mode !== "lost";
  // A wall must not stay green when nobody knows any more.
  document.documentElement.toggleAttribute("data-lost", mode === "lost");
}

/** A document that came in. */
function take(text, how) {
  const status = JSON.parse(text);
  // Another version has another page.
  if (shown && shown.version !== status.version) return location.reload();
  [clock.agent, clock.here, heard] = [at(status.now) || Date.now(), Date.now(), Date.now()];
  if (how === "live" || mode !== "live") enter(how);
  if (!next) setTimeout(redraw, REDRAW);
  next = status;
}

function redraw() {
  if (!next) return;
  [shown, next] = [next, null];
  show(shown);
}

function lose(error) {
  stream?.close();
  [stream, streamAt] = [null, 0];
  redraw();
  enter("lost");
  document.title = "Connection lost - opship";
  setIcon(document.querySelector("#health > .icon"), "lost");
  showFavicon("bad", "lost");
  put(byId("lost-what"), error.refused ? "The agent wants its token again: reload this page." : "The agent does not answer.");
  const old = () => (heard ? `What you see is ${duration(Date.now() - heard)} old. ` : "");
  running(byId("lost-age"), () => `${old()}Trying again every ${POLL_EVERY / 1e3} s.`);
}

function listen() {
  let said = false;
  streamAt = Date.now() + STREAM_AGAIN;
  stream = new EventSource("events");
  stream.onmessage = (event) => {
    said = true;
    try {
      take(event.data, "live");
    } catch (error) {
      lose(error);
    }
  };
  stream.onerror = () => {
    stream?.close();
    stream = null;
    if (said) streamAt = Date.now() + POLL_EVERY;
    if (mode === "live") enter("polling");
    ask();
  };
}

async function ask() {
  if (asking) return;
  [asking, asked] = [true, Date.now()];
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MAX) });
    if (!answer.ok) throw Object.assign(new Error(), { refused: [401, 403].includes(answer.status) });
    take(await answer.text(), "polling");
    if (!stream && Date.now() >= streamAt) listen();
  } catch (error) {
    lose(error);
  } finally {
    asking = false;
  }
}

function everySecond() {
  moveClocks();
  if (Date.now() - Math.max(heard, asked) >= (mode === "live" ? SILENCE_MAX : POLL_EVERY)) ask();
}

// --- the theme: the system's, or the one chosen here ---

const THEMES = ["auto", "light", "dark"];

function remembered(theme) {
  try {
    return theme ? localStorage.setItem("theme", theme) : localStorage.getItem("theme");
  } catch {
    return null; // Storage is switched off: the choice lasts as long as the page.
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  put(byId("theme"), `Theme: ${theme}`);
}

byId("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(theme);
  remembered(theme);
});

setTheme(THEMES.find((theme) => theme === remembered()) ?? THEMES[0]);
setIcon(document.querySelector("#lost .icon"), "lost");
setIcon(document.querySelector("#health > .icon"), "starting");
enter("connecting");
setInterval(everySecond, 1e3);
listen();
