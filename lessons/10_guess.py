"""What a thief of the accounts file does: tries passwords that many people have.

    python3 lessons/10_guess.py accounts.txt
"""

import base64
import hashlib
import sys
import time

COMMON = "password sunshine iloveyou princess".split()


def letters(data):
    """passlib's base64: a dot for each plus, nothing to fill up."""
    return base64.b64encode(data).decode().rstrip("=").replace("+", ".")


guesses, start = 0, time.monotonic()
with open(sys.argv[1], encoding="utf-8") as file:
    accounts = file.read().splitlines()
for account in accounts:
    name, secret = account.split(" ")
    _, _, rounds, salt, proof = secret.split("$")
    salt = base64.b64decode(salt.replace(".", "+") + "==")
    found = f"none of {len(COMMON)}"
    for guess in COMMON:
        guesses += 1
        if letters(hashlib.pbkdf2_hmac("sha256", guess.encode(), salt, int(rounds))) == proof:
            found = guess
            break
    print(f"{name}: {found}", flush=True)
print(f"{guesses} guesses, each took {(time.monotonic() - start) / guesses:.2f} s")
