/*
 * turnRestClient 1.3.0: gets TURN credentials from a TURN REST service.
 *
 *   <script src="https://gateway.example/clients/turnRestClient-1.3.0.js"></script>
 *   TurnService.getTurnServiceInfo("https://gateway.example/turn", jwt)
 *     .then(function (info) { return new RTCPeerConnection({ iceServers: info.iceServers }); });
 *
 * Runs in old browsers too: ECMAScript 5, XMLHttpRequest and Promise are enough.
 *
 * MIT licence. A published version never changes.
 */
var TurnService = (function () {
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
  var MARGIN = 60000;

  /** A request that takes longer has failed, in ms; without an end it would block its key. */
  var TIME_OUT = 30000;

  /** What an error repeats of what a service says, in characters at most. */
  var LONGEST_REASON = 300;

  /** @type {Object<string, Answer>} */
  var kept = {};

  /** @type {Object<string, Promise<Answer>>} */
  var inFlight = {};

  /**
   * @param {Answer} answer
   * @returns {boolean} false also if the clock was set back, since its end is unknown then
   */
  function isFresh(answer) {
    var now = Date.now();
    return answer.since <= now && now < answer.until;
  }

  /**
   * @param {string} url
   * @returns {string | null} what it is, as seen from the page; null: it is no http(s) URL
   */
  function absolute(url) {
    // A worker has no document, and nothing else that old browsers resolve a URL with.
    if (typeof document === "undefined") return /^https?:\/\//i.test(url) ? url : null;
    var link = document.createElement("a");
    if (url) link.href = url;
    return /^https?:$/.test(link.protocol) ? link.href : null;
  }

  /**
   * @param {string} body of a refusal: the gateway's are JSON-RPC errors
   * @returns {string} why; empty: it does not say
   */
  function reasonIn(body) {
    try {
      var refusal = JSON.parse(body).error;
      return [refusal.message, refusal.data && refusal.data.detail]
        .filter(function (text) {
          return typeof text === "string" && text;
        })
        .join(": ")
        .slice(0, LONGEST_REASON);
    } catch (error) {
      return "";
    }
  }

  /**
   * @param {string} url
   * @param {string | null} jwt
   * @returns {Promise<string>} the body
   */
  function fetchText(url, jwt) {
    return new Promise(function (resolve, reject) {
      var request = new XMLHttpRequest();
      var reason = "cannot be reached";
      var timer = setTimeout(function () {
        reason = "no answer in time";
        request.abort();
      }, TIME_OUT);

      function fail() {
        clearTimeout(timer);
        reject(new Error("TURN service: " + reason));
      }

      request.onerror = fail;
      request.onabort = fail;
      request.onload = function () {
        clearTimeout(timer);
        if (request.status >= 200 && request.status < 300) {
          resolve(request.responseText);
          return;
        }
        var why = reasonIn(request.responseText);
        var error = new Error("TURN service: HTTP " + request.status + (why && ", " + why));
        error.status = request.status;
        error.reason = why;
        reject(error);
      };

      try {
        request.open("GET", url);
        if (jwt) request.setRequestHeader("Authorization", "Bearer " + jwt);
        request.send();
      } catch (error) {
        clearTimeout(timer);
        reject(error);
      }
    });
  }

  /**
   * @param {string} text
   * @returns {TurnServiceInfo}
   */
  function parse(text) {
    var info = null;
    try {
      info = JSON.parse(text);
    } catch (error) {
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
  function ask(key, url, jwt) {
    // The ttl counts from when the service answers, which is later: so this errs to the safe side.
    var since = Date.now();
    return fetchText(url, jwt).then(function (text) {
      var life = (Number(parse(text).ttl) || 0) * 1000;
      var answer = {
        text: text,
        since: since,
        until: since + life - Math.min(life / 10, MARGIN)
      };
      Object.keys(kept).forEach(function (other) {
        if (kept[other].until <= since) delete kept[other];
      });
      kept[key] = answer;
      return answer;
    });
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
  function getTurnServiceInfo(url, jwt, force) {
    var service = absolute(url);
    if (!service) {
      return Promise.reject(
        new TypeError("TURN service: the URL must begin with https:// or http://, or be relative")
      );
    }
    var token = jwt === undefined ? null : jwt;
    var key = JSON.stringify([service, token]);
    var answer = kept[key];
    if (answer && !force && isFresh(answer)) return Promise.resolve(parse(answer.text));
    if (!inFlight[key]) {
      inFlight[key] = ask(key, service, token);
      var forget = function () {
        delete inFlight[key];
      };
      inFlight[key].then(forget, forget);
    }
    return inFlight[key].then(function (fresh) {
      return parse(fresh.text);
    });
  }

  return { getTurnServiceInfo: getTurnServiceInfo, getTurnInfo: getTurnServiceInfo };
})();
