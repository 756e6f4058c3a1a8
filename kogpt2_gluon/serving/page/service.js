// What the page says to the service, and what it makes of the answers. All addresses are relative to the page's own.

/** A failure in words for people; `needsToken` where the service asked for a token, or refused the one that it got. */
export class ServiceError extends Error {
  constructor(message, needsToken = false) {
    super(message);
    this.needsToken = needsToken;
  }
}

const GONE = "The service does not answer. Is kogpt2 serve still running?";
const CUT_OFF = "The service broke off in the middle of the text. Is kogpt2 serve still running?";
const UNREADABLE = "The service answered something that this page cannot read. Is it the same version as the page?";

export async function about(token, signal) {
  const answer = await ask("about", { headers: authorization(token), cache: "no-store", signal });
  try {
    return await answer.json();
  } catch {
    throw new ServiceError(UNREADABLE);
  }
}

/** Yields the events of a text, [name, data], up to its end. Aborting `signal` ends it, and the service's work. */
export async function* generate(request, token, signal) {
  const headers = { "Content-Type": "application/json", ...authorization(token) };
  const answer = await ask("generate", { method: "POST", headers, body: JSON.stringify(request), signal });
  for await (const [name, data] of serverSentEvents(answer.body)) {
    if (name === "error") throw new ServiceError(sentence(data.error?.message ?? UNREADABLE));
    yield [name, data];
    if (name === "end") return;
  }
  throw new ServiceError(CUT_OFF);
}

function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...options, credentials: "same-origin" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServiceError(GONE);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  let said = "";
  try {
    said = (await answer.json()).error?.message ?? "";
  } catch {
    // A proxy in front of the service answers in HTML: its status says enough.
  }
  const wait = Number(answer.headers.get("Retry-After"));
  const again = wait > 0 ? `Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.` : "Try again in a moment.";
  if (answer.status === 401) {
    return new ServiceError(said ? sentence(said) : "The service wants its token.", true);
  }
  if (answer.status === 429) return new ServiceError(`The service is busy: ${said || "its queue is full"}. ${again}`);
  if (answer.status === 503) {
    return new ServiceError(`The service takes no new texts: ${said || "it is stopping"}. ${again}`);
  }
  return new ServiceError(said ? sentence(said) : `The service answered with status ${answer.status}.`);
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Parses a stream of server-sent events whose data is JSON; a chunk may end anywhere, inside a character too. */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // what is left is no whole event
      unread += value;
      const blocks = unread.split(/\r?\n\r?\n/);
      unread = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServiceError) throw error;
    throw new ServiceError(CUT_OFF);
  } finally {
    reader.cancel().catch(() => {}); // the stream may be broken already
  }
}

/** [name, data] of an event's lines; null for a comment, which keeps a connection alive. */
function parseEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":"); // only \n ends a line of JSON: U+2028, say, is a character as any other
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (line.startsWith("event:")) name = value;
    if (line.startsWith("data:")) data.push(value);
  }
  if (!data.length) return null;
  try {
    return [name, JSON.parse(data.join("\n"))];
  } catch {
    throw new ServiceError(UNREADABLE);
  }
}
