"""One word in several texts: "flies" the verb and "flies" the insects."""

import json

import pytest
import torch

import regard
from regard.lens.compare import two_clusters

TEXTS = [
    "Time flies like an arrow",
    "The bird flies over the house",
    "Fruit flies like a banana",
    "Swat the flies with a newspaper",
]


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def compared(lens):
    return lens.compare(TEXTS, word="flies")


def test_at_first_the_same_and_by_the_last_layer_verbs_and_insects(compared):
    assert compared.similarity.shape == (7, 4, 4)
    assert compared.similarity[0].min() >= 0.98
    assert compared.similarity.max() <= 1 + 1e-9
    assert compared.clusters == ([0, 1], [2, 3])
    verbs, insects, across = compared.cluster_similarity()
    assert insects[-1] > 0.85
    assert (verbs[-1] + insects[-1]) / 2 > across[-1] + 0.05
    assert across[0] > 0.98


def test_it_is_the_cosine_of_the_words_vectors(lens, compared):
    vectors = [lens.read(text).word("flies").vectors for text in TEXTS]
    for layer in range(7):
        for i in range(4):
            for j in range(4):
                cosine = torch.cosine_similarity(vectors[i][layer], vectors[j][layer], dim=0)
                assert compared.similarity[layer, i, j] == pytest.approx(float(cosine), abs=1e-5)


def test_parting_is_the_mean_over_pairs(compared):
    last = compared.similarity[-1]
    verbs, insects, across = (float(layers[-1]) for layers in compared.cluster_similarity())
    assert verbs == pytest.approx(float(last[0, 1]))
    assert insects == pytest.approx(float(last[2, 3]))
    assert across == pytest.approx(float(last[:2, 2:].mean()))


def test_two_texts(lens):
    compared = lens.compare(TEXTS[:2], "flies")
    assert compared.clusters == ([0], [1])
    first, second, across = compared.cluster_similarity()
    assert first.isnan().all()
    assert second.isnan().all()
    assert across[-1] == pytest.approx(float(compared.similarity[-1, 0, 1]))
    assert json.loads(json.dumps(compared.to_dict()))["texts"] == TEXTS[:2]


def test_the_same_text_twice(lens):
    assert lens.compare(TEXTS[:1] * 3, "flies").similarity.min() > 1 - 1e-6


def test_a_word_for_each_text_and_the_nth(lens):
    compared = lens.compare(["a dog and a cat", "a cat and a dog"], word=["dog", "cat"])
    assert [word.text for word in compared.words] == ["dog", "cat"]
    compared = lens.compare(["the cat and the dog", "the sun and the moon"], word="the", nth=2)
    assert [word.start for word in compared.words] == [12, 12]


@pytest.mark.parametrize(
    ("similarity", "clusters"),
    [
        (torch.eye(2), ([0], [1])),
        (-torch.ones(3, 3) + 2 * torch.eye(3), None),
        (torch.ones(4, 4), None),
        (torch.block_diag(torch.ones(2, 2), torch.ones(3, 3)), ([0, 1], [2, 3, 4])),
    ],
    ids=["apart", "opposed", "alike", "two blocks"],
)
def test_clusters(similarity, clusters):
    first, second = two_clusters(similarity)
    assert sorted(first + second) == list(range(len(similarity)))
    assert first
    assert second
    assert clusters in (None, (first, second))


def test_what_cannot_be_compared(lens):
    with pytest.raises(ValueError, match=r"^compare: expected two texts or more\.$"):
        lens.compare(TEXTS[:1], "flies")
    with pytest.raises(ValueError, match=r"^compare: expected two texts or more\.$"):
        lens.compare(TEXTS[0], "flies")
    with pytest.raises(ValueError, match=r"^compare: expected one word, or one for each of 4 texts\. Got 2\.$"):
        lens.compare(TEXTS, ["flies", "flies"])
    with pytest.raises(
        LookupError, match=r"^In 'The bird flies over the house': There is no word 'arrow' in the text\."
    ):
        lens.compare(TEXTS, "arrow")
    with pytest.raises(LookupError, match=r"^In 'The bird flies over the house': “THE” occurs twice"):
        lens.compare(TEXTS[1:2] * 2, "THE")
    with pytest.raises(ValueError, match=r"^read: the text is empty\.$"):
        lens.compare(["flies", ""], "flies")
