"""network.json: where a network comes from, and which of its layers stay float."""

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class MixedRecord(_Record):
    """What max_top1_drop kept in float, and the price; see `Mixed` of quantization/mixed.py."""

    max_top1_drop: float
    layers: tuple[str, ...]
    top1_float: float
    top1_int8: float
    top1_mixed: float
    extra_bytes: int
    float_macs_share: float


class Network(_Record):
    """network.json."""

    network: str
    licence: str = ""
    mixed: MixedRecord | None = None
