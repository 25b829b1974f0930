/*
 * turnRestClient 1.1.0: gets TURN credentials from a TURN REST service.
 *
 *   <script src="https://gateway.example/clients/turnRestClient-1.1.0.js"></script>
 *   TurnService.getTurnServiceInfo("https://gateway.example/turn", jwt)
 *     .then(({ iceServers }) => new RTCPeerConnection({ iceServers }));
 *
 * MIT licence. A published version never changes.
 */
globalThis.TurnService = (() => {
  "use strict";

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
   */

  /**
   * Credentials are not handed out in their last minute, or in the last tenth of their life if that
   * is shorter; in ms.
   */
  const MARGIN = 60_000;

  /** A request that takes longer has failed, in ms; without an end it would block its key. */
  const TIME_OUT = 30_000;

  /** @type {Map<string, Answer>} */
  const kept = new Map();

  /** @type {Map<string, Promise<Answer>>} */
  const inFlight = new Map();

  /**
   * @param {Answer} answer
   * @returns {boolean} false also if the clock was set back, since its end is unknown then
   */
  function isFresh({ since, until }) {
    const now = Date.now();
    return since <= now && now < until;
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
        const error = new Error(`TURN service: HTTP ${response.status}`);
        throw Object.assign(error, { status: response.status });
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
    const answer = { text, since, until: since + life - Math.min(life / 10, MARGIN) };
    for (const [other, { until }] of kept) {
      if (until <= since) kept.delete(other);
    }
    kept.set(key, answer);
    return answer;
  }

  /**
   * Get credentials: those of an earlier call with the same URL and JWT while they are good, else
   * new ones. Calls with the same URL and JWT share a request that is on its way.
   *
   * @param {string} url of the service, absolute, http or https
   * @param {string | null} [jwt] sent as a bearer token; null: none
   * @param {boolean} [force] ask for new ones in any case
   * @returns {Promise<TurnServiceInfo>} rejects with a TypeError if the URL is not an http(s) URL,
   *   with an Error that has the HTTP status as its `status` if the service refuses, and with other
   *   errors if it cannot be reached or answers nonsense
   */
  async function getTurnServiceInfo(url, jwt = null, force = false) {
    if (!/^https?:\/\//i.test(url)) {
      throw new TypeError("TURN service: the URL must begin with https:// or http://");
    }
    const key = JSON.stringify([url, jwt]);
    const answer = kept.get(key);
    if (answer && !force && isFresh(answer)) return parse(answer.text);
    let request = inFlight.get(key);
    if (!request) {
      request = ask(key, url, jwt).finally(() => inFlight.delete(key));
      inFlight.set(key, request);
    }
    return parse((await request).text);
  }

  return { getTurnServiceInfo, getTurnInfo: getTurnServiceInfo };
})();
