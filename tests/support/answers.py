"""A made-up answer from documents: three sentences and twelve passages, some of them hostile to a page."""

from __future__ import annotations

from typing import Any

FACTS = [
    "The Orliston lighthouse was built in 1871 by the engineer Mara Feld, on the rock where two ships had been lost.",
    "Its lamp burned rapeseed oil until 1902; then it was changed to paraffin.",
    "<script>alert('passages')</script> is what one of the keepers' children typed into the logbook's electronic copy.",
    "The keeper's log of 1913 says: “Fog for nineteen days & no sight of the mainland.”",
    "בשנת 1924 ביקר במגדלור המשורר, וכתב עליו שיר בן שבע שורות.",
    "The lens, of 2,100 kg, floats on mercury, so that a child can turn it with one finger.",
    "Electric light came in 1931. The engineer Feld, by then eighty, threw the switch.",
]
NOTES = [
    "Visitors are admitted on Sundays from May to September.",
    "The stair has 199 steps; there is no lift.",
    "The café at its foot closes when the wind exceeds force 8.",
    "Dogs & prams stay <em>below</em>.",
    "The 1871 drawings are kept in the town's archive, and can be seen by appointment.",
]
REPLY = [
    "The lighthouse was built in 1871 by Mara Feld.",
    "She also switched on its electric light in 1931 👍, <b>when she was eighty</b>.",
    "It can be visited on Sundays.",
]
SCORES = [  # of each sentence: passage, attention, logits, knockout, score
    [(0, 0.31, 11.2, 14.23, 9.8), (11, 0.12, 2.7, 1.91, 2.2), (6, 0.074, 0.4, 0.34, 0.6), (1, 0.02, -0.31, -0.02, 0.1)],
    [(6, 0.587, None, 21.6, 14.0), (0, 0.22, None, 3.35, 4.5), (5, 0.041, None, -0.4, 0.2)],
    [(7, 0.25, 6.6, 8.04, 7.1), (9, 0.062, 0.8, 0.52, 0.9)],
]


class MadeUp:
    """What `Answer.to_dict()` promises, with every passage among the sources of every sentence."""

    def to_dict(self) -> dict[str, Any]:
        passages = [
            {"file": file, "start": 0, "end": 0, "text": text}
            for file, texts in (("history <i>of</i> Orliston.txt", FACTS), ("notes/visitors.md", NOTES))
            for text in texts
        ]
        place = {passage["file"]: 0 for passage in passages}
        for passage in passages:
            passage["start"] = place[passage["file"]]
            passage["end"] = passage["start"] + len(passage["text"])
            place[passage["file"]] = passage["end"] + 2
        sentences, start = [], 0
        for text, scores in zip(REPLY, SCORES, strict=True):
            names = ("passage", "attention", "logits", "knockout", "score")
            sources = [dict(zip(names, source, strict=True)) for source in scores]
            others = set(range(len(passages))) - {source["passage"] for source in sources}
            logits = None if scores[0][2] is None else 0.01
            sources += [
                {"passage": n, "attention": 0.0002, "logits": logits, "knockout": 0.01, "score": 0.02}
                for n in sorted(others)
            ]
            sentences.append(
                {
                    "text": text,
                    "start": start,
                    "end": start + len(text),
                    "log_probability": -3.5,
                    "sources": sources,
                }
            )
            start += len(text) + 1
        return {
            "model": "SmolLM2-135M-Instruct",
            "question": "Who built the lighthouse, and can one </script><script>alert('q')</script> visit it?",
            "reply": " ".join(REPLY),
            "note": "",
            "passages": passages,
            "sentences": sentences,
        }


ANSWER = MadeUp()
