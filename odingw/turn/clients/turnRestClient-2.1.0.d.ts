/*
 * turnRestClient 2.1.0: types.
 *
 * MIT licence. A published version never changes.
 */

/** Fits into the iceServers of an RTCPeerConnection's configuration. */
export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

/** What the service answers. */
export interface TurnServiceInfo {
  username: string;
  password: string;
  /** Seconds for which the credentials are good. */
  ttl: number;
  /** TURN URIs. */
  uris?: string[];
  /** The same, as an RTCPeerConnection wants it. */
  iceServers: IceServer[];
}

/** What getTurnServiceInfo rejects with. */
export interface TurnServiceError extends Error {
  /** The HTTP status with which the service refuses; undefined if something else went wrong. */
  readonly status?: number;
  /** What the service says about it; empty if it says nothing, undefined without a status. */
  readonly reason?: string;
}

/**
 * Get credentials: those of an earlier call with the same URL and JWT while they are good, else
 * new ones. Calls with the same URL and JWT share a request that is on its way.
 *
 * @param url of the service, http or https; may be relative to the page
 * @param jwt sent as a bearer token; null, the default: none
 * @param force ask for new ones in any case
 * @returns rejects with a TypeError if the URL is not an http(s) URL, else with a TurnServiceError
 */
export function getTurnServiceInfo(
  url: string,
  jwt?: string | null,
  force?: boolean,
): Promise<TurnServiceInfo>;

export { getTurnServiceInfo as getTurnInfo };

export interface WatchOptions {
  /** Sent as a bearer token, or a function that gives a fresh one for each request. */
  jwt?: string | null | (() => string | null | Promise<string | null>);
  /** Gets the credentials, each time. */
  onUpdate: (info: TurnServiceInfo) => void;
  /**
   * Gets what went wrong, also what the jwt function throws. The watch goes on, with longer and
   * longer pauses up to a minute.
   */
  onError?: (error: TurnServiceError) => void;
}

/**
 * Get credentials, and new ones before they expire, until stopped. Also in a tab that nobody looks
 * at, if they live for 80 seconds or more.
 *
 * @param url of the service, http or https; may be relative to the page
 * @returns stops the watch; after that no function is called any more
 * @throws TypeError if the URL is not an http(s) URL, or onUpdate is missing
 */
export function watchTurnServiceInfo(url: string, options: WatchOptions): () => void;
