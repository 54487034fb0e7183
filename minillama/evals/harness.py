"""A model of this package inside lm-evaluation-harness (Gao et al. 2021).

So that its users run any of its tasks on our checkpoints:

    from lm_eval import simple_evaluate
    simple_evaluate(harness_model(scorer), tasks=["lambada_openai"])

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from typing import Any

from minillama.evals.protocol import Sampling, Scorer
from minillama.files import needs


def harness_model(scorer: Scorer) -> Any:
    """Any scorer as a model class of lm-evaluation-harness.

    Args:
        scorer: `LlamaScorer(model, tokenizer)`, or another.

    Returns:
        An `lm_eval.api.model.LM`.

    Raises:
        ValueError: if lm-evaluation-harness is not installed.

    Chapter: notebooks/14_evaluation.ipynb
    """
    with needs("lm-evaluation-harness is not installed; "
               '`pip install "minillama[eval]"`'):
        from lm_eval.api.model import LM

    class Minillama(LM):
        """Its three questions, asked as our two."""

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            scores = scorer.score([request.args for request in requests])
            return [(score.log_prob, score.greedy) for score in scores]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            pairs = [("", request.args[0]) for request in requests]
            return [score.log_prob for score in scorer.score(pairs)]

        def generate_until(self, requests: list[Any]) -> list[str]:
            texts = []
            for request in requests:
                prompt, wish = request.args
                until = wish.get("until") or []
                sampled = wish.get("do_sample", False)
                [[text]] = scorer.generate([prompt], Sampling(
                    wish.get("max_gen_toks", 256),
                    (until,) if isinstance(until, str) else tuple(until),
                    wish.get("temperature", 1.0) if sampled else 0.0,
                    wish.get("top_p", 1.0)))
                texts.append(text.text)
            return texts

    return Minillama()
