/*
 * turnRestClient 2.1.0: gets TURN credentials from a TURN REST service, and keeps them good.
 *
 *   import { getTurnServiceInfo } from "https://gateway.example/clients/turnRestClient-2.1.0.js";
 *   const { iceServers } = await getTurnServiceInfo("https://gateway.example/turn", jwt);
 *   const connection = new RTCPeerConnection({ iceServers });
 *
 * MIT licence. A published version never changes.
 */

/**
 * What the service answers.
 *
 * @typedef {object} TurnServiceInfo
 * @property {string} username
 * @property {string} password
 * @property {number} ttl seconds for which the credentials are good
 * @property {RTCIceServer[]} iceServers the same, as an RTCPeerConnection wants it
 */

/**
 * An answer, kept as text so that every caller gets an object of its own.
 *
 * @typedef {object} Answer
 * @property {string} text
 * @property {number} since when it was asked for, in ms since 1970
 * @property {number} until when it is too old to be handed out
 * @property {number} renew when a watch asks for new ones
 */

/**
 * Credentials are not handed out in their last minute, or in the last tenth of their life if that
 * is shorter; in ms.
 */
const MARGIN = 60_000;

/** A request that takes longer has failed, in ms; without an end it would block its key. */
const TIME_OUT = 30_000;

/** A watch asks no more often than this unless something fails, however short the ttl, in ms. */
const SHORTEST_WATCH = 5_000;

/** After an error a watch waits this long at most, then twice as long, and so on, in ms. */
const FIRST_RETRY = 1_000;

/** It waits no longer than this, in ms. */
const LONGEST_RETRY = 60_000;

/**
 * A watch looks at the clock this often, in ms. A single timer would stand still while the machine
 * sleeps, and fire at once if it were set to more than 2^31 ms.
 */
const LONGEST_TIMER = 30_000;

/**
 * Browsers run the timers of a tab that nobody looks at once in so many ms. So a watch renews that
 * much earlier than it must, but not before a quarter of the credentials' life is over.
 */
const THROTTLE = 60_000;

/** What an error repeats of what a service says, in characters at most. */
const LONGEST_REASON = 300;

/** @type {Map<string, Answer>} */
const kept = new Map();

/** @type {Map<string, Promise<Answer>>} */
const inFlight = new Map();

/**
 * @param {number} since when the time began, in ms since 1970
 * @param {number} until when it ends
 * @returns {boolean} whether it lasts; false also if the clock was set back to before it began,
 *   since the clock does not tell its end then
 */
function lasts(since, until) {
  const now = Date.now();
  return since <= now && now < until;
}

/**
 * @param {string} url
 * @returns {string} what it is, as seen from the page
 * @throws {TypeError} it is no http(s) URL
 */
function absolute(url) {
  let found = null;
  try {
    if (url) found = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    // Falls through: what is no URL is no http(s) URL either.
  }
  if (!/^https?:$/.test(found?.protocol)) {
    throw new TypeError(
      "TURN service: the URL must begin with https:// or http://, or be relative",
    );
  }
  return found.href;
}

/**
 * @param {string} body of a refusal: the gateway's are JSON-RPC errors
 * @returns {string} why; empty: it does not say
 */
function reasonIn(body) {
  try {
    const { message, data } = JSON.parse(body).error;
    return [message, data?.detail]
      .filter((text) => typeof text === "string" && text)
      .join(": ")
      .slice(0, LONGEST_REASON);
  } catch {
    return "";
  }
}

/**
 * @param {string} url
 * @param {string | null} jwt
 * @returns {Promise<string>} the body
 */
async function fetchText(url, jwt) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), TIME_OUT);
  try {
    const response = await fetch(url, {
      headers: jwt ? { Authorization: `Bearer ${jwt}` } : {},
      cache: "no-store",
      signal: controller.signal,
    });
    if (!response.ok) {
      const { status } = response;
      const reason = reasonIn(await response.text());
      const error = new Error(`TURN service: HTTP ${status}${reason && `, ${reason}`}`);
      throw Object.assign(error, { status, reason });
    }
    return await response.text();
  } catch (error) {
    throw controller.signal.aborted ? new Error("TURN service: no answer in time") : error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @param {string} text
 * @returns {TurnServiceInfo}
 */
function parse(text) {
  let info = null;
  try {
    info = JSON.parse(text);
  } catch {
    // Falls through: text that is not JSON is no object either.
  }
  if (typeof info !== "object" || info === null) {
    throw new Error("TURN service: the answer is not a JSON object");
  }
  return info;
}

/**
 * @param {string} key
 * @param {string} url
 * @param {string | null} jwt
 * @returns {Promise<Answer>}
 */
async function ask(key, url, jwt) {
  // The ttl counts from when the service answers, which is later: so this errs to the safe side.
  const since = Date.now();
  const text = await fetchText(url, jwt);
  const life = (Number(parse(text).ttl) || 0) * 1000;
  const until = since + life - Math.min(life / 10, MARGIN);
  const renew = Math.max(until - THROTTLE, since + life / 4);
  const answer = { text, since, until, renew };
  for (const [other, { until }] of kept) {
    if (until <= since) kept.delete(other);
  }
  kept.set(key, answer);
  return answer;
}

/**
 * @param {string} url absolute
 * @param {string | null} jwt
 * @param {(answer: Answer) => boolean} isGood whether an answer that is kept will do
 * @returns {Promise<Answer>}
 */
async function obtain(url, jwt, isGood) {
  const key = JSON.stringify([url, jwt]);
  const answer = kept.get(key);
  if (answer && isGood(answer)) return answer;
  let request = inFlight.get(key);
  if (!request) {
    request = ask(key, url, jwt).finally(() => inFlight.delete(key));
    inFlight.set(key, request);
  }
  return request;
}

/**
 * Get credentials: those of an earlier call with the same URL and JWT while they are good, else
 * new ones. Calls with the same URL and JWT share a request that is on its way.
 *
 * @param {string} url of the service, http or https; may be relative to the page
 * @param {string | null} [jwt] sent as a bearer token; null: none
 * @param {boolean} [force] ask for new ones in any case
 * @returns {Promise<TurnServiceInfo>} rejects with a TypeError if the URL is not an http(s) URL,
 *   with an Error that has the HTTP status as its `status` and what the service says as its
 *   `reason` if the service refuses, and with other errors if it cannot be reached or answers
 *   nonsense
 */
export async function getTurnServiceInfo(url, jwt = null, force = false) {
  const isGood = ({ since, until }) => !force && lasts(since, until);
  return parse((await obtain(absolute(url), jwt, isGood)).text);
}

export { getTurnServiceInfo as getTurnInfo };

/**
 * Call a function of the page's. What it throws is reported as the page's own error; it is none of
 * the service's, and does not end the watch.
 *
 * @template T
 * @param {(value: T) => void} callback
 * @param {T} value
 */
function tell(callback, value) {
  try {
    callback(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * @param {number} failures how many there were in a row before this one
 * @returns {number} how long to wait, in ms; random, so that the clients of a service that was away
 *   do not all come back at once
 */
function retryDelay(failures) {
  return Math.min(FIRST_RETRY * 2 ** failures, LONGEST_RETRY) * (1 - Math.random() / 2);
}

/**
 * Get credentials, and new ones before they expire, until stopped. Also in a tab that nobody looks
 * at, if they live for 80 seconds or more.
 *
 * @param {string} url of the service, http or https; may be relative to the page
 * @param {object} options
 * @param {string | null | (() => string | null | Promise<string | null>)} [options.jwt] sent as a
 *   bearer token, or a function that gives a fresh one for each request
 * @param {(info: TurnServiceInfo) => void} options.onUpdate gets the credentials, each time
 * @param {(error: Error) => void} [options.onError] gets what went wrong: see getTurnServiceInfo;
 *   also what the jwt function throws. The watch goes on, with longer and longer pauses up to a
 *   minute
 * @returns {() => void} stops the watch; after that no function is called any more
 * @throws {TypeError} the URL is not an http(s) URL, or onUpdate is missing
 */
export function watchTurnServiceInfo(url, { jwt = null, onUpdate, onError = () => {} }) {
  const service = absolute(url);
  if (typeof onUpdate !== "function") throw new TypeError("TURN service: onUpdate is missing");
  let stopped = false;
  let failures = 0;
  /** Whether it waits, and for what time to be over. */
  let waiting = false;
  let since = 0;
  let until = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  /** Look at the clock, and renew if it is time. */
  function look() {
    if (!waiting) return;
    clearTimeout(timer);
    if (lasts(since, until)) {
      timer = setTimeout(look, Math.min(until - Date.now(), LONGEST_TIMER));
    } else {
      renew();
    }
  }

  /** What happens to the page may be what a try that failed waits for. */
  function lookNow() {
    if (failures) until = since;
    look();
  }

  async function renew() {
    waiting = false;
    try {
      const token = typeof jwt === "function" ? await jwt() : jwt;
      if (stopped) return;
      const answer = await obtain(service, token, (kept) => lasts(kept.since, kept.renew));
      if (stopped) return;
      failures = 0;
      since = answer.since;
      until = Math.max(answer.renew, Date.now() + SHORTEST_WATCH);
      tell(onUpdate, parse(answer.text));
    } catch (error) {
      if (stopped) return;
      since = Date.now();
      until = since + retryDelay(failures);
      failures += 1;
      tell(onError, error);
    }
    waiting = !stopped;
    look();
  }

  // Neither is there in every place where a module runs.
  const events = [
    [globalThis, "online"],
    [globalThis.document, "visibilitychange"],
  ].filter(([target]) => target?.addEventListener);
  for (const [target, name] of events) target.addEventListener(name, lookNow);
  renew();
  return () => {
    stopped = true;
    waiting = false;
    clearTimeout(timer);
    for (const [target, name] of events) target.removeEventListener(name, lookNow);
  };
}
