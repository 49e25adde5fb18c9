// Goes on from the issuer's answer to the console, without the answer in the history.
window.location.replace("./");
