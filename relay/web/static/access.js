// What the reader's token may do: a reading token changes nothing, so no button is shown that would be refused.

import { get } from "./api.js";

let may = "full";
const isKnown = get("/api/access").then(
  (document) => {
    may = document.access || "full";
  },
  () => {}, // the relay itself refuses what isn't allowed
);

export const known = () => isKnown;
export const mayChange = () => may === "full";
