"""Where the repository's files are, for tests in any folder."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
JUDGED_QUESTIONS = TESTS / "engine" / "judged_questions.json"
