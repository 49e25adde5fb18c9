"""What most teams would write: TF-IDF of words and letters, a linear SVM. Runs in its own venv.

Reads {"training": [[text, label], ...], "testing": [...], "unknown": [...], "misspelt":
{kind: [...]}} from standard input,
prints its figures as one JSON line.
"""

import json
import sys
import time

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

data = json.load(sys.stdin)
texts, labels = zip(*data["training"], strict=True)
asked, wanted = zip(*data["testing"], strict=True)
began = time.process_time()
model = make_pipeline(
    make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    ),
    LinearSVC(),
).fit(texts, labels)
trained = time.process_time() - began
began = time.process_time()
guesses = model.predict(asked)
together = (time.process_time() - began) / len(asked)
began = time.process_time()
for text in asked[:300]:
    model.predict([text])
single = (time.process_time() - began) / 300
figures = {
    "accuracy": float(np.mean(guesses == np.array(wanted))),
    "macro_f1": float(f1_score(wanted, guesses, average="macro")),
    "microseconds_in_bulk": together * 1e6,
    "microseconds": single * 1e6,
    "training_seconds": trained,
}
if data["unknown"]:
    margins = [model.decision_function(part).max(1) for part in (asked, data["unknown"])]
    truth = np.repeat([1, 0], [len(part) for part in margins])
    figures["mix_auroc"] = float(roc_auc_score(truth, np.concatenate(margins)))
for kind, copies in data["misspelt"].items():
    figures[f"{kind}_accuracy"] = float(np.mean(model.predict(copies) == np.array(wanted)))
print(json.dumps(figures))
