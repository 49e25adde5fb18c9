// The script tag: defines the element, and adds one to the page unless the page has its own.
import { SeawallChat } from "./element.js";

const ATTRIBUTES = [
  "server", "agent", "token-url", "token-function", "title-text", "greeting", "theme", "placement",
  "labels", "open", "files",
];

const script = document.currentScript;
if (!customElements.get("seawall-chat")) customElements.define("seawall-chat", SeawallChat);
const served = script?.src ? new URL(".", script.src).href : location.origin;

const start = () => {
  for (const element of document.querySelectorAll("seawall-chat:not([server])")) {
    element.setAttribute("server", served);
  }
  if (document.querySelector("seawall-chat") || script?.hasAttribute("data-manual")) return;
  const element = document.createElement("seawall-chat");
  element.setAttribute("server", served);
  for (const name of ATTRIBUTES) {
    const value = script?.getAttribute(`data-${name}`);
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  // Beside the body: what a page does to that, such as a transformation, does not move the chat.
  document.documentElement.append(element);
};
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
