// What the widget says, in English; a page may replace each of these.

export const LABELS = {
  title: "Chat",
  open: "Open chat",
  close: "Close chat",
  fresh: "New conversation",
  log: "Conversation",
  message: "Your message",
  placeholder: "Write a message…",
  first: "Please decide above first.",
  attach: "Attach files",
  drop: "Remove the files",
  send: "Send",
  stop: "Stop",
  retry: "Try again",
  you: "You",
  assistant: "Assistant",
  person: "Support",
  greeting: "",
  thinking: "Thinking…",
  working: "Working: {tool}",
  queued: "Many people are writing at the moment. You are number {position} in the queue, about {seconds} s.",
  lost: "The connection was lost. Reconnecting…",
  waiting: "The service is busy. Trying again…",
  stopping: "Stopping…",
  notStopped: "It could not be stopped here and may go on.",
  stopped: "Stopped.",
  cut: "The answer was cut off at its limit.",
  filtered: "The rest of the answer was withheld.",
  consent: "May the assistant do this?",
  approve: "Approve",
  reject: "Reject",
  approved: "You have approved this.",
  rejected: "You have rejected this.",
  elsewhere: "This was decided elsewhere.",
  done: "Done.",
  notDone: "Not done.",
  noArguments: "No details.",
  until: "Until {time}",
  waitsFor: "This waits for: {role}.",
  application: "another application",
  question: "A question from {source}",
  answer: "Send answer",
  decline: "Decline",
  visit: "Open this page:",
  visited: "I have done this",
  withPerson: "A person will answer you here.",
  newMessage: "New message",
};

/** Words for a problem, by its code. */
export const PROBLEMS = {
  "connection-lost": "There is no connection. Your message is kept; try again.",
  "no-token": "You are not signed in. Sign in on this page, then try again.",
  unauthenticated: "You are not signed in, or your session has expired. Sign in and try again.",
  forbidden: "You may not do this.",
  "session-not-found": "This conversation has ended. Your next message begins a new one.",
  "turn-paused": "Please decide about what is open above first.",
  "session-busy": "Your previous message is still being answered.",
  "already-decided": "This was decided before.",
  "budget-exhausted": "The limit for now is reached. Please try again later.",
  "quota-exhausted": "There are too many requests at the moment. Please try again in a while.",
  overloaded: "There are too many requests at the moment. Please try again in a while.",
  "upstream-throttled": "There are too many requests at the moment. Please try again in a while.",
  "upstream-refused": "The assistant cannot answer this message.",
  "turn-cancelled": "Stopped.",
  "turn-interrupted": "The answer was interrupted after something had been done. Please check before you repeat it.",
  "effect-unknown": "It is not certain whether this was done. Please do not repeat it; our staff will check.",
  "deadline-exceeded": "It took too long. Please try again.",
  "invalid-field": "This message cannot be sent as it is.",
  "invalid-file": "A file cannot be sent.",
  "body-too-large": "This message is too long.",
  other: "Something went wrong. Please try again.",
};

/** A label with its {placeholders} filled in. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

export function words(problem, labels) {
  const code = problem?.code ?? "";
  return labels[code] ?? PROBLEMS[code] ?? labels.other ?? PROBLEMS.other;
}
