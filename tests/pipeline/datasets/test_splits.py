"""Splits: properties for any set of tracks, shares, precedence, and notes on imperfect splits."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.datasets.catalogue import track_table
from mgc.pipeline.datasets.splits import SHARES, assign_splits, read_splits
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import DatasetError


def make_tracks(*rows: tuple[str, str | None, str | None], split: list[str | None] | None = None) -> pa.Table:
    """Track table of (id, genre, artist) tuples."""
    ids, genres, artists = zip(*rows, strict=True)
    columns = {"track_id": ids, "path": [f"{key}.mp3" for key in ids], "genre": genres, "artist_id": artists}
    return track_table(columns | ({"split": split} if split else {}))


def singles(**sizes: int) -> pa.Table:
    """Track table by unknown artists, with the given number of tracks per genre."""
    return make_tracks(*((f"{genre}{i:04}", genre, None) for genre, n in sizes.items() for i in range(n)))


def splits_of(tracks: pa.Table) -> dict[str, str]:
    return dict(zip(tracks["track_id"].to_pylist(), tracks["split"].to_pylist(), strict=True))


def table_of(tracks: pa.Table) -> dict[str, dict[str, int]]:
    """Number of tracks: `{genre: {split: number}}`."""
    table: dict[str, Counter] = defaultdict(Counter)
    for genre, split in zip(tracks["genre"].to_pylist(), tracks["split"].to_pylist(), strict=True):
        table[genre][split] += 1
    return {genre: dict(counts) for genre, counts in table.items()}


def artists_apart(tracks: pa.Table) -> bool:
    """True if every known artist is in one split only."""
    homes = defaultdict(set)
    for artist, split in zip(tracks["artist_id"].to_pylist(), tracks["split"].to_pylist(), strict=True):
        homes[artist].add(split)
    return all(len(splits) == 1 for artist, splits in homes.items() if artist is not None)


track_tables = st.lists(
    st.tuples(st.sampled_from(["x", "y", "z"]), st.none() | st.integers(0, 12).map("a{}".format)),
    min_size=1,
    max_size=60,
).map(lambda rows: make_tracks(*((f"t{i:03}", genre, artist) for i, (genre, artist) in enumerate(rows))))


class TestProperties:
    @given(track_tables, st.integers(0, 5))
    def test_every_track_gets_a_split_and_no_artist_two(self, tracks, seed):
        result, notes = assign_splits(tracks, seed=seed)
        assert set(result["split"].to_pylist()) <= set(SPLITS)
        assert result.drop_columns("split").equals(tracks.drop_columns("split"))
        assert artists_apart(result)
        assert all(note.isprintable() for note in notes)

    @given(track_tables, st.randoms(use_true_random=False))
    def test_row_order_does_not_matter(self, tracks, rng):
        order = list(range(tracks.num_rows))
        rng.shuffle(order)
        straight, notes = assign_splits(tracks, seed=3)
        shuffled, same_notes = assign_splits(tracks.take(order), seed=3)
        assert straight.take(order).equals(shuffled)
        assert sorted(notes) == sorted(same_notes)

    @given(track_tables, st.data())
    def test_growing_moves_nothing(self, tracks, data):
        first = tracks.slice(0, data.draw(st.integers(1, tracks.num_rows)))
        known = splits_of(assign_splits(first, seed=1)[0])
        grown, _ = assign_splits(tracks, seed=data.draw(st.integers(0, 3)), known=known)
        assert known.items() <= splits_of(grown).items()
        assert artists_apart(grown)

    @given(track_tables)
    def test_a_genre_with_three_artists_of_its_own_is_in_every_split(self, tracks):
        result, _ = assign_splits(tracks, seed=0)
        genres_of = defaultdict(set)
        groups_of = defaultdict(set)
        for track in tracks.to_pylist():
            group = track["artist_id"] or track["track_id"]
            genres_of[group].add(track["genre"])
            groups_of[track["genre"]].add(group)
        for genre, groups in groups_of.items():
            if len(groups) >= 3 and all(len(genres_of[group]) == 1 for group in groups):
                assert set(table_of(result)[genre]) == set(SPLITS)


class TestShares:
    @pytest.mark.parametrize("number", [*range(10, 60), 100, 999])
    def test_single_tracks_are_apportioned_to_within_one(self, number):
        result, notes = assign_splits(singles(x=number, y=2 * number), seed=0)
        for genre, counts in table_of(result).items():
            total = number if genre == "x" else 2 * number
            assert all(abs(counts[split] - SHARES[split] * total) < 1 for split in SPLITS)
        assert notes == ()

    @pytest.mark.parametrize(
        ("tracks", "expected"),
        [
            (singles(x=5, y=5), (3, 1, 1)),
            (singles(x=3, y=10), (1, 1, 1)),
            (singles(x=2, y=10), (1, 0, 1)),
            (singles(x=1, y=10), (1, 0, 0)),
        ],
    )
    def test_small_sets_give_each_split_something(self, tracks, expected):
        table = table_of(assign_splits(tracks, seed=0)[0])
        assert tuple(table["x"].get(split, 0) for split in SPLITS) == expected

    def test_a_seed_is_a_different_draw(self):
        tracks = singles(x=50)
        draws = {tuple(assign_splits(tracks, seed=seed)[0]["split"].to_pylist()) for seed in range(5)}
        assert len(draws) == 5

    def test_growing_one_by_one_stays_near_the_shares(self):
        known: dict[str, str] = {}
        for number in range(1, 81):
            tracks, _ = assign_splits(singles(x=number), seed=0, known=known)
            known = splits_of(tracks)
        assert table_of(tracks)["x"] == {"training": 64, "validation": 8, "test": 8}

    def test_grouping_is_closer_than_scikit_learns_folds(self):
        """8 genres of 1,000 tracks, artists of Zipf-distributed size, some in two genres; worst shares compared."""
        rng = np.random.default_rng(0)
        rows: list[tuple[str, str, str]] = []
        for genre in range(8):
            end = len(rows) + 1000
            while len(rows) < end:
                artist, other = f"a{len(rows)}", rng.integers(8)
                size = min(end - len(rows), int(rng.zipf(1.6)), 200)
                mixed = rng.random(size) < 0.05
                rows += [(f"{len(rows) + i:05}", f"g{other if mixed[i] else genre}", artist) for i in range(size)]
        result, _ = assign_splits(make_tracks(*rows), seed=0)
        genres, artists = np.array([row[1] for row in rows]), [row[2] for row in rows]
        folds = StratifiedGroupKFold(10, shuffle=True, random_state=0).split(genres, genres, artists)
        sklearn_split = np.full(len(rows), "training", dtype=object)
        for name in ("test", "validation"):
            sklearn_split[next(folds)[1]] = name

        def worst(split: np.ndarray) -> float:
            return max(abs((split[genres == g] == name).mean() - SHARES[name]) for g in set(genres) for name in SPLITS)

        assert worst(np.array(result["split"].to_pylist())) < 0.02 < worst(sklearn_split)

    @pytest.mark.corpus
    def test_corpus_without_its_splits(self, corpus):
        """The corpus's own split has 13/2/2 tracks per genre, and so has this one; each of ten folds lacks a genre."""
        dataset = open_dataset(corpus / "fma_debian")
        no_split = pa.nulls(dataset.tracks.num_rows, pa.string())
        unsplit = dataset.tracks.set_column(dataset.tracks.column_names.index("split"), "split", no_split)
        result, notes = assign_splits(unsplit, seed=0)
        assert artists_apart(result)
        assert all(row == {"training": 13, "validation": 2, "test": 2} for row in table_of(result).values())
        assert len(notes) == 1
        assert notes[0].startswith("artists too large to split cleanly, each kept in one split: 193 (13 of 17 Folk, tr")
        genres, artists = unsplit["genre"].to_pylist(), unsplit["artist_id"].to_pylist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns that 6 genres do not reach 10 folds
            folds = [test for _, test in StratifiedGroupKFold(10).split(genres, genres, artists)]
        assert max(len({genres[row] for row in fold}) for fold in folds) < 6


class TestPrecedence:
    TRACKS = make_tracks(
        ("000001", "x", "a"), ("000002", "x", "a"), ("000003", "x", "b"), ("000004", "x", None), ("000005", None, "a"),
        split=["test", None, None, None, "training"],
    )  # fmt: skip

    @pytest.mark.corpus
    def test_the_datasets_own_split_stays(self, corpus):
        dataset = open_dataset(corpus / "fma_debian")
        result, notes = assign_splits(dataset.tracks, seed=5)
        assert result.equals(dataset.tracks)
        assert notes == ()

    def test_partial_splits_are_completed_by_artist(self):
        result, notes = assign_splits(self.TRACKS, seed=0)
        splits = splits_of(result)
        assert (splits["000001"], splits["000002"], splits["000005"]) == ("test", "test", None)
        assert {splits["000003"], splits["000004"]} == {"training", "validation"}
        assert notes[0] == "tracks that had no split yet, placed around the others: 3 of 4"

    def test_known_splits_win_over_the_dataset(self):
        result, notes = assign_splits(self.TRACKS, seed=0, known={"000001": "training", "000003": "validation"})
        assert list(splits_of(result).values())[:3] == ["training", "training", "validation"]
        assert "tracks that keep their split although the dataset has another: 1 (000001)" in notes

    @pytest.mark.parametrize("key", ["000001", "000001.mp3", "1"])
    def test_an_override_wins_over_all(self, key):
        override = {key: "validation", "nobody": "test"}
        result, notes = assign_splits(self.TRACKS, seed=0, known={"000001": "training"}, override=override)
        assert list(splits_of(result).values())[:2] == ["validation", "validation"]
        assert "splits given for tracks that are not in the dataset: 1 (nobody)" in notes

    def test_an_id_is_not_mistaken_for_another_without_its_zeros(self):
        tracks = make_tracks(("1", "x", None), ("01", "x", None), ("2", "x", None))
        assert splits_of(assign_splits(tracks, seed=0, override={"1": "test"})[0])["01"] != "test"

    def test_an_override_for_another_dataset_is_refused(self):
        with pytest.raises(
            DatasetError, match=r"none of the 1 tracks .* \(nobody\); name tracks as .* \(000001, 000002"
        ):
            assign_splits(self.TRACKS, seed=0, override={"nobody": "test"})

    def test_new_tracks_go_where_most_of_the_artist_is(self):
        tracks = make_tracks(*((f"t{i}", "x", "a") for i in range(5)))
        known = {"t0": "training", "t1": "validation", "t2": "validation"}
        result, notes = assign_splits(tracks, seed=0, known=known)
        assert splits_of(result) == {**known, "t3": "validation", "t4": "validation"}
        assert "artists in more than one split, which flatters the scores: 1 (a)" in notes


class TestNotes:
    def test_large_artist(self):
        rows = [(f"{i:02}", "x", "big" if i < 6 else None) for i in range(12)]
        result, notes = assign_splits(make_tracks(*rows), seed=0)
        assert artists_apart(result)
        assert notes == ("artists too large to split cleanly, each kept in one split: big (6 of 12 x, training)",)

    def test_genres_that_miss_a_split(self):
        tracks = make_tracks(("1", "x", "a"), ("2", "x", "a"), ("3", "x", "a"), ("4", "y", None), ("5", "y", None))
        _, notes = assign_splits(tracks, seed=0)
        assert notes[1:] == (
            "genres with too few tracks for three splits: y (2)",
            "genres without a validation track: x, y",
            "genres without a test track: x",
        )

    def test_a_dataset_that_has_no_validation_part(self):
        tracks = make_tracks(
            ("1", "x", None), ("2", "x", None), ("3", "x", None), split=["training", "training", "test"]
        )
        assert assign_splits(tracks, seed=0)[1] == ("genres without a validation track: x",)


class TestReadSplits:
    def test_csv_and_parquet(self, tmp_path):
        (tmp_path / "splits.csv").write_text("track_id,path,split\n1,,train\n,b.mp3,VALID\n3,c.mp3,test\n")
        assert read_splits(tmp_path / "splits.csv") == {"1": "training", "b.mp3": "validation", "3": "test"}
        pq.write_table(pa.table({"track_id": [1, 2], "split": ["test", "val"]}), tmp_path / "splits.parquet")
        assert read_splits(tmp_path / "splits.parquet") == {"1": "test", "2": "validation"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("track_id\n1\n", "no column split; its columns are track_id"),
            ("track_id,split\n", "has no rows"),
            ("track_id,split\n,test\n", "line 2: it has no track_id and no path"),
            ("track_id,split\n1,\n", "line 2: track '1' has no split"),
            ("track_id,split\n1,dev\n", "line 2: 'dev' is not a split"),
            ("track_id,split\n1,test\n1,test\n", "line 3: track '1' was named before"),
        ],
    )
    def test_malformed(self, tmp_path, text, message):
        (tmp_path / "splits.csv").write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_splits(tmp_path / "splits.csv")

    def test_missing(self, tmp_path):
        with pytest.raises(DatasetError, match=r"cannot read .*splits.csv: No such file"):
            read_splits(tmp_path / "splits.csv")


def copied(n: int = 20) -> pa.Table:
    """Tracks of `n` files, each under two artists."""
    names = [f"{i:03}{letter}" for i in range(n) for letter in "ab"]
    tracks = make_tracks(*((name, "xy"[int(name[:3]) % 2], f"artist {name}") for name in names))
    return tracks.append_column("content_hash", pa.array([name[:3] for name in names]))


@pytest.mark.parametrize("seed", range(4))
def test_equal_files_under_two_artists_are_not_split(seed: int) -> None:
    tracks, notes = assign_splits(copied(), seed=seed)
    splits = splits_of(tracks)
    assert all(splits[f"{i:03}a"] == splits[f"{i:03}b"] for i in range(20))
    assert set(splits.values()) == set(SPLITS)
    assert not notes


def test_copies_join_the_artists_that_have_them() -> None:
    """Artists p and q share a file, q and r another: all of their tracks stay in one split."""
    rows = [(f"{artist}{i}", "x", artist) for artist in "pqr" for i in range(3)]
    others = [(f"other{i:02}", "x", f"o{i}") for i in range(30)]
    hashes = [{"p0": "1", "q0": "1", "q1": "2", "r0": "2"}.get(row[0]) for row in (*rows, *others)]
    tracks = make_tracks(*rows, *others)
    order = {name: value for (name, *_), value in zip((*rows, *others), hashes, strict=True)}
    column = pa.array([order[name] for name in tracks["track_id"].to_pylist()], pa.string())
    assigned, _ = assign_splits(tracks.append_column("content_hash", column), seed=0)
    assert len({splits_of(assigned)[name] for name, *_ in rows}) == 1


def test_test_tracks_that_are_copies_of_training_tracks_are_named() -> None:
    override = {
        f"{i:03}{letter}": "test" if letter == "b" and i < 3 else "training" for i in range(20) for letter in "ab"
    }
    _, notes = assign_splits(copied(), seed=0, override=override)
    assert any("3 of 3 (000b, 001b, 002b)" in note and "leaky" in note for note in notes)
