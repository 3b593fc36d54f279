"""How much is made up: ``FUZZ_CASES=10000`` texts, and as many more requests and examples."""

import os

CASES = int(os.environ.get("FUZZ_CASES", "400"))
IS_THOROUGH = CASES >= 10_000
