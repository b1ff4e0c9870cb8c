// Shows what /rl/now says, every two seconds. Values become text and nothing else, wherever they come from.
"use strict";

const EVERY_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// -- values as text --------------------------------------------------------------------------------------------------

const UNKNOWN = "\u2013";
const known = (value, text) => (value === null || value === undefined ? UNKNOWN : text(value));
const fixed = (value, digits) => known(value, (v) => v.toFixed(digits));
const whole = (value) => known(value, (v) => Math.round(v).toLocaleString("en-US"));
const share = (value, digits = 1) => known(value, (v) => `${(100 * v).toFixed(digits)} %`);
const ms = (value) => known(value, (v) => `${v < 10 ? v.toFixed(1) : Math.round(v)} ms`);

function clock(seconds) {
  const total = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// -- elements --------------------------------------------------------------------------------------------------------

function make(tag, about = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) element[name] = value;
  element.append(...children);
  return element;
}

function draw(tag, about, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(about)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function tell(id, text) {
  $(id).hidden = !text;
  $(id).textContent = text || "";
}

// -- the run ---------------------------------------------------------------------------------------------------------

function showRun(now) {
  $("run").hidden = now === null;
  if (now === null) return;
  const going = now.state === "running";
  $("phase").textContent = now.phase || now.scenario;
  $("state").textContent = now.state;
  $("state").className = `chip ${going ? "running" : ""}`;
  $("clock").textContent =
    `${clock(now.run_time_s)} of ${clock(now.duration_s)}${going ? `, ${clock(now.duration_s - now.run_time_s)} left` : ""} \u00b7 ${now.run}`;
  tell("trouble", now.trouble);
  tell("faults", now.faults.length ? `Faults in force: ${now.faults.join(", ")}` : "");
  showFigures(now);
  showTimeline(now);
  showServices(now);
  showUsers(now.users);
  showSetup(now);
}

function showFigures(now) {
  const of = (name) => now.services.reduce((total, one) => total + (one[name] || 0), 0);
  const sum = (name) => now.users.reduce((total, one) => total + one[name], 0);
  const { requests, failed, rows_lost: lost, decisions, skipped } = now.counts;
  const figures = [
    ["Users", `${sum("running")}`, `${sum("planned")} planned`],
    ["Requests recorded", whole(requests), requests ? `${share(failed / requests, 2)} failed` : "none yet"],
    ["Rows lost", known(lost, String), lost ? "the run is being stopped" : "", lost > 0],
    ["Decisions recorded", whole(decisions), skipped ? `${skipped} intervals missed` : ""],
    ["Reward so far", fixed(now.reward.mean, 3), now.reward.decisions ? `without ${now.reward.without.join(", ")}` : "no decision is settled yet"],
    ["Telemetry age", known(now.telemetry_age_s, (v) => `${v.toFixed(1)} s`), now.telemetry_age_s === null ? "no metrics" : ""],
    ["Requests/s", of("request_rate_rps").toFixed(1), `${of("in_flight")} in flight`],
    ["Traffic", now.pattern || UNKNOWN, ""],
  ];
  $("figures").replaceChildren(...figures.map(([name, value, note, bad]) => make("div", {},
    make("dt", { textContent: name }),
    make("dd", { textContent: value, className: bad ? "bad" : "" }),
    make("small", { textContent: note }))));
}

function showSetup(now) {
  const { setup } = now;
  const facts = [
    ["Scenario", now.scenario], ["Target", now.target], ["Seed", setup.seed],
    ["Time scale", `${setup.time_scale}${setup.compressed ? " (compressed)" : ""}`], ["User scale", setup.user_scale],
    ["Decision interval", `${setup.decision_interval_s} s`], ["Logging policy", setup.logging_policy],
    ["Metrics source", setup.metrics_source], ["Actuator", setup.actuator],
    ["Faults", setup.without_faults ? "left out on request" : `${now.planned_faults.length}, made by ${setup.fault_injector}`],
  ];
  $("setup").replaceChildren(...facts.flatMap(([name, value]) =>
    [make("dt", { textContent: name }), make("dd", { textContent: String(value) })]));
}

let drawn = null; // what the timeline shows, to be drawn anew when the window gets another width

function showTimeline(now) {
  drawn = now;
  const [width, height, left, top, bottom] = [Math.max(280, $("timeline").clientWidth), 170, 34, 22, 20];
  const x = (t) => left + (Math.min(t, now.duration_s) / now.duration_s) * (width - left - 8);
  const most = Math.max(1, ...now.planned_users.map((point) => point[1]), ...now.history.map((point) => point[2]));
  const y = (users) => height - bottom - (users / most) * (height - top - bottom);
  const picture = draw("svg", { width, height, role: "img", "aria-label": "planned and running users over the run" });
  for (const [index, phase] of now.phases.entries()) {
    const [from, to] = [x(phase.start_s), x(phase.end_s)];
    if (index % 2 === 0) picture.append(draw("rect", { class: "band", x: from, y: top, width: to - from, height: height - top - bottom }));
    const room = Math.floor((to - from) / 7);
    if (room > 3) picture.append(draw("text", { x: from + 3, y: top - 7 }, phase.name.length > room ? `${phase.name.slice(0, room - 1)}\u2026` : phase.name));
  }
  for (const fault of now.planned_faults) {
    const bar = draw("rect", { class: "fault", x: x(fault.start_s), y: height - bottom - 7, width: Math.max(2, x(fault.end_s) - x(fault.start_s)), height: 7 });
    bar.append(draw("title", {}, fault.text));
    picture.append(bar);
  }
  picture.append(
    draw("line", { class: "axis", x1: left, x2: width - 8, y1: height - bottom, y2: height - bottom }),
    draw("text", { x: left - 5, y: y(most) + 4, "text-anchor": "end" }, String(most)),
    draw("text", { x: left - 5, y: y(0) + 4, "text-anchor": "end" }, "0"),
    draw("text", { x: left, y: height - 4 }, "0:00"),
    draw("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, clock(now.duration_s)),
    draw("polyline", { class: "planned", points: now.planned_users.map(([t, users]) => `${x(t)},${y(users)}`).join(" ") }),
    draw("polyline", { class: "running", points: now.history.map((point) => `${x(point[0])},${y(point[2])}`).join(" ") }));
  if (now.phase !== null) {
    const at = x(now.run_time_s);
    picture.append(draw("line", { class: "now", x1: at, x2: at, y1: top, y2: height - bottom }));
  }
  $("timeline").replaceChildren(picture);
}

function spark(points, place) {
  const [width, height] = [120, 24];
  const values = points.map((point) => point[place]).filter((value) => value !== null);
  const picture = draw("svg", { width, height, role: "img", "aria-label": "latency over the run" });
  if (values.length > 1) {
    const most = Math.max(...values, 1);
    const line = values.map((value, index) => `${(index / (values.length - 1)) * (width - 2) + 1},${height - 2 - (value / most) * (height - 4)}`);
    picture.append(draw("polyline", { class: "running", points: line.join(" ") }));
  }
  return picture;
}

const COLUMNS = ["Service", "Latency", "p95", "SLO", "Failed", "Requests/s", "In flight", "CPU", "Queue", "Action", "Propensity", "Reward", "Latency so far"];

function showServices(now) {
  $("window").textContent =
    `Latency, failures and requests/s of the last ${now.window_s.toPrecision(3)} s; CPU and queue of the last metrics sample.`;
  const head = make("tr", {}, ...COLUMNS.map((name) => make("th", { textContent: name, scope: "col", className: name === "Action" ? "text" : "" })));
  const rows = now.services.map((one, index) => {
    const action = one.action === null ? UNKNOWN : `${one.action}${one.actuated === false ? " (not applied)" : ""}`;
    const cells = [
      [ms(one.latency_ms), one.latency_ms > one.slo_ms ? "bad" : ""], [ms(one.p95_ms)], [ms(one.slo_ms)],
      [share(one.error_rate), one.error_rate > 0.05 ? "bad" : ""], [fixed(one.request_rate_rps, 1)], [whole(one.in_flight)],
      [share(one.cpu, 0)], [whole(one.queue)], [action, `text wider ${one.actuated === false ? "bad" : ""}`],
      [fixed(one.propensity, 3)], [fixed(one.reward, 3)],
    ];
    const row = make("tr", {}, make("th", { textContent: one.service, scope: "row" }));
    for (const [place, [text, className = ""]] of cells.entries()) {
      const cell = make("td", { className }, make("span", { textContent: text }));
      cell.dataset.name = COLUMNS[place + 1];
      row.append(cell);
    }
    const last = make("td", { className: "spark" }, spark(now.history, 3 + index));
    last.dataset.name = COLUMNS[COLUMNS.length - 1];
    row.append(last);
    return row;
  });
  $("services").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

function showUsers(users) {
  const head = make("tr", {}, ...["Profile", "Running", "Planned", ""].map((name) => make("th", { textContent: name, scope: "col" })));
  const most = Math.max(1, ...users.flatMap((one) => [one.running, one.planned]));
  const rows = users.map((one) => make("tr", {},
    make("th", { textContent: one.profile, scope: "row" }),
    make("td", { textContent: String(one.running) }), make("td", { textContent: String(one.planned) }),
    make("td", {}, make("meter", { min: 0, max: most, value: one.running, ariaLabel: `${one.profile} running` }))));
  $("users").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

// -- the runs of this process, their exports and downloads -----------------------------------------------------------

const LINKS = { "report_card.html": "Report card", "bundle.zip": "Bundle (zip)", "report_card.json": "Report (JSON)", "manifest.json": "Manifest" };
let shownRuns = "";
let answer = {}; // number of a run -> why its export was refused

function showRuns(runs) {
  const text = JSON.stringify([runs, answer]);
  $("runs-section").hidden = runs.length === 0;
  if (text === shownRuns) return; // a button that is being pressed stays where it is
  shownRuns = text;
  $("runs").replaceChildren(...runs.map(entry));
}

function entry(run) {
  const over = run.state === "complete" || run.state === "interrupted";
  const going = run.export !== null && run.export.state === "running";
  const button = make("button", {
    type: "button", disabled: !over || going, onclick: () => start(run.number),
    textContent: going ? "Exporting" : run.export === null ? "Export" : "Export again",
  });
  const links = Object.entries(LINKS).filter(([name]) => run.files.includes(name)).map(([name, title]) => make("a", {
    className: "button", textContent: title, href: `runs/${run.number}/${name}`,
    ...(name === "report_card.html" ? { target: "_blank", rel: "noopener" } : { download: "" }),
  }));
  const line = make("div", {}, make("strong", { textContent: run.name }),
    make("span", { className: `chip ${run.state === "running" ? "running" : ""}`, textContent: run.state }), button, ...links);
  const shown = make("div", { className: "entry" }, line);
  if (answer[run.number]) shown.append(make("p", { className: "alert error", textContent: answer[run.number] }));
  if (run.export !== null) {
    const words = {
      running: "The export goes on.", done: "Exported.", failed: "The export failed.",
      incomplete: "Exported, but rows are missing; the bundle marks the gaps.",
    };
    shown.append(make("p", { className: "note", textContent: words[run.export.state] }));
    if (run.export.lines.length) shown.append(make("pre", { textContent: run.export.lines.join("\n") }));
  }
  return shown;
}

async function start(number) {
  answer = {};
  try {
    const response = await fetch(`runs/${number}/export`, { method: "POST" });
    if (!response.ok) answer[number] = (await response.json()).message;
  } catch (error) {
    answer[number] = `no answer: ${error.message}`;
  }
  await look();
}

// -- again and again -------------------------------------------------------------------------------------------------

async function look() {
  try {
    const response = await fetch("now", { cache: "no-store" });
    if (response.redirected || !response.ok) throw new Error(response.redirected ? "log in again" : `status ${response.status}`);
    const { now, runs } = await response.json();
    tell("message", now === null ? "No run has been started yet. Start one in Locust, and this page follows it." : "");
    showRun(now);
    showRuns(runs);
  } catch (error) {
    tell("message", `Locust does not answer (${error.message}); this is how it stood before.`);
  }
}

async function follow() {
  if (!document.hidden) await look();
  setTimeout(follow, EVERY_MS);
}

function dress() {
  // Locust keeps the choice of its theme in the same place, and a page in its tab hears of a change.
  const dark = localStorage.theme === "dark" || (!("theme" in localStorage) && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

window.addEventListener("resize", () => { if (drawn !== null) showTimeline(drawn); });
window.addEventListener("storage", dress);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
document.body.classList.toggle("inside", window.parent !== window);
dress();
follow();
