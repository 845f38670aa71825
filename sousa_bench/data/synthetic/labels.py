"""Clips as rows of SOUSA's `labels/samples.parquet` and `labels/strokes.parquet`: the same columns and types."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sousa_bench.data.synthetic.drums import DRUMS
from sousa_bench.data.synthetic.players import BINARY_TIER
from sousa_bench.data.synthetic.rooms import ROOMS

if TYPE_CHECKING:
    import pyarrow as pa

    from sousa_bench.data.synthetic.generator import Clip

_SAMPLE_COLUMNS: tuple[tuple[str, str], ...] = (
    ("sample_id", "text"),
    ("profile_id", "text"),
    ("rudiment_slug", "text"),
    ("tempo_bpm", "int"),
    ("duration_sec", "float"),
    ("num_cycles", "int"),
    ("skill_tier", "text"),
    ("skill_tier_binary", "text"),
    ("dominant_hand", "text"),
    ("midi_path", "text"),
    ("audio_path", "text"),
    ("num_strokes", "int"),
    ("num_measures", "int"),
    ("soundfont", "text"),
    ("augmentation_preset", "text"),
    ("augmentation_group_id", "text"),
    ("aug_soundfont", "text"),
    ("aug_room_type", "text"),
    ("aug_room_wet_dry", "float"),
    ("aug_mic_distance", "float"),
    ("aug_mic_type", "text"),
    ("aug_compression_ratio", "float"),
    ("aug_noise_level_db", "float"),
    ("aug_bit_depth", "none"),
    ("aug_sample_rate", "none"),
)

_STROKE_COLUMNS: tuple[tuple[str, str], ...] = (
    ("index", "int"),
    ("hand", "text"),
    ("stroke_type", "text"),
    ("intended_time_ms", "float"),
    ("actual_time_ms", "float"),
    ("timing_error_ms", "float"),
    ("intended_velocity", "int"),
    ("actual_velocity", "int"),
    ("velocity_error", "int"),
    ("is_grace_note", "bool"),
    ("is_accent", "bool"),
    ("diddle_position", "float"),
    ("flam_spacing_ms", "float"),
    ("parent_stroke_index", "float"),
    ("buzz_count", "float"),
    ("sample_id", "text"),
)


def _schema(columns: Sequence[tuple[str, str]]) -> "pa.Schema":
    import pyarrow as pa

    types = {
        "text": pa.large_string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "none": pa.null(),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns])


def samples_schema() -> "pa.Schema":
    """Schema of `labels/samples.parquet`."""
    return _schema(_SAMPLE_COLUMNS)


def strokes_schema() -> "pa.Schema":
    """Schema of `labels/strokes.parquet`."""
    return _schema(_STROKE_COLUMNS)


def audio_path(clip: "Clip") -> str:
    """Where the clip's FLAC lies, relative to the dataset's folder."""
    return f"audio/{clip.rudiment}/{clip.sample_id}.flac"


def sample_row(clip: "Clip", domain: str) -> dict[str, Any]:
    """One row of `labels/samples.parquet`. There is no MIDI file, so `midi_path` is null."""
    player, drum, room = clip.player, DRUMS[domain][clip.drum], ROOMS[domain][clip.room]
    return {
        "sample_id": clip.sample_id,
        "profile_id": player.player_id,
        "rudiment_slug": clip.rudiment,
        "tempo_bpm": clip.tempo_bpm,
        "duration_sec": clip.performance.duration_ms / 1000.0,
        "num_cycles": clip.performance.cycles,
        "skill_tier": player.tier,
        "skill_tier_binary": BINARY_TIER[player.tier],
        "dominant_hand": player.dominant_hand,
        "midi_path": None,
        "audio_path": audio_path(clip),
        "num_strokes": len(clip.performance.strokes),
        "num_measures": clip.performance.cycles,
        "soundfont": drum.name,
        "augmentation_preset": room.preset,
        "augmentation_group_id": f"{player.player_id[:8]}_{clip.rudiment}_{clip.tempo_bpm}",
        "aug_soundfont": drum.name,
        "aug_room_type": room.room_type,
        "aug_room_wet_dry": room.wet,
        "aug_mic_distance": room.mic_distance_m,
        "aug_mic_type": room.mic_type,
        "aug_compression_ratio": room.compression,
        "aug_noise_level_db": room.noise_db,
        "aug_bit_depth": None,
        "aug_sample_rate": None,
    }


def strokes_table(clips: Sequence["Clip"]) -> "pa.Table":
    """The strokes of several clips as a table of `strokes_schema`; NaN becomes null, as in SOUSA's file."""
    import pyarrow as pa

    strokes = np.concatenate([clip.performance.strokes for clip in clips])
    columns: dict[str, Any] = {name: strokes[name] for name in strokes.dtype.names or ()}
    columns["timing_error_ms"] = strokes["actual_time_ms"] - strokes["intended_time_ms"]
    columns["velocity_error"] = strokes["actual_velocity"] - strokes["intended_velocity"]
    columns["sample_id"] = np.repeat(
        [clip.sample_id for clip in clips], [len(clip.performance.strokes) for clip in clips]
    )
    schema = strokes_schema()
    arrays = [pa.array(columns[field.name], type=field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
