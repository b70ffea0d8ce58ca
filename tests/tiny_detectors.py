"""Tiny detectors of the real classes, that see one box everywhere: for tests of what is made of boxes."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig, YolosConfig, YolosForObjectDetection

PLACE = (0.5, 0.25, 0.5, 0.25)
"""Middle, width and height, as shares of the picture."""


def write_detector(
    folder: Path,
    labels: dict[int, str],
    *,
    kind: str = "yolos",
    class_of: int = 0,
    place: tuple[float, float, float, float] = PLACE,
) -> Path:
    """A folder in the layout in which detectors are published; `class_of` is the class that it sees."""
    torch.manual_seed(0)
    named = {"id2label": labels, "label2id": {word: key for key, word in labels.items()}}
    model = _yolos(named) if kind == "yolos" else _detr(named)
    head = model.class_labels_classifier
    last = head if isinstance(head, nn.Linear) else head.layers[-1]
    boxes = model.bbox_predictor.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.eye(len(labels) + 1)[class_of] * 9)
        boxes.weight.zero_()
        boxes.bias.copy_(torch.logit(torch.tensor(place)))
    model.save_pretrained(folder)
    told = {
        "image_processor_type": "YolosImageProcessor" if kind == "yolos" else "DetrImageProcessor",
        "size": {"shortest_edge": 32, "longest_edge": 64},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def _yolos(named: dict[str, object]) -> nn.Module:
    return YolosForObjectDetection(
        YolosConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=3,
            **named,
        )
    )


def _detr(named: dict[str, object]) -> nn.Module:
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    return DetrForObjectDetection(
        DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=3,
            **named,
        )
    )
