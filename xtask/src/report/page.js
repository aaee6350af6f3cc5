"use strict";
// Hides the steps that are ok on demand, and says in the title how many there are of each kind.
const steps = document.getElementById("steps");
const rows = Array.from(steps.tBodies[0].rows);
const count = kind => rows.filter(row => row.className === kind).length;
document.title += ` (${count("ok")} ok, ${count("open")} open, ${count("fail")} failed)`;
document.getElementById("only").addEventListener("change", event => steps.classList.toggle("only", event.target.checked));
