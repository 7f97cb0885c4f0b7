"""What network.json says of layers that stay float."""

from pydantic import BaseModel, ConfigDict


class MixedRecord(BaseModel):
    """What max_top1_drop kept in float, and the price; see `Mixed` of quantization/mixed.py."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    max_top1_drop: float
    layers: tuple[str, ...]
    top1_float: float
    top1_int8: float
    top1_mixed: float
    extra_bytes: int
    float_macs_share: float
