/** What a shop's own script does with the chat: say who is logged in, and that somebody has logged out. */
window.convsdk = window.convsdk || function () { (convsdk.q = convsdk.q || []).push(arguments); };

const logIn = document.querySelector("#log-in");
const logOut = document.querySelector("#log-out");
const who = document.querySelector("#who");

/** The shop's backend vouches for Ann, in the browser of this visitor alone. */
async function fetchToken(visitor) {
  const answer = await fetch(`token?visitor=${encodeURIComponent(visitor)}`);
  if (!answer.ok) throw new Error(`the shop gives no token: ${answer.status}`);
  return answer.text();
}

function show(isLoggedIn) {
  logIn.hidden = isLoggedIn;
  logOut.hidden = !isLoggedIn;
  who.textContent = isLoggedIn ? "Hello, Ann" : "";
}

function identify() {
  convsdk("identify", { token: fetchToken });
}

logIn.onclick = () => {
  sessionStorage.setItem("shop-user", "ann");
  show(true);
  identify();
  logOut.focus();
};

logOut.onclick = () => {
  sessionStorage.removeItem("shop-user");
  show(false);
  convsdk("reset");
  logIn.focus();
};

document.querySelector("#ask").onclick = () => convsdk("open");

const isLoggedIn = sessionStorage.getItem("shop-user") === "ann";
show(isLoggedIn);
if (isLoggedIn) identify();
