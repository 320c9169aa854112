import csv
import io
import json
import math

from rich.console import Console

from som.evaluation.report import EvaluationReport, print_report, write_csv, write_json


def make_report():
    rows = [{"name": "a", "time": 0, "psnr": math.inf}, {"name": "b", "time": 1, "psnr": 20.0, "ssim": math.nan}]
    return EvaluationReport(
        dataset="demo",
        split="train",
        num_views=2,
        num_views_available=9,
        summary={"psnr": 20.0, "ssim": math.nan, "psnr_foreground": 18.125, "mask_iou": 0.5},
        per_frame=rows,
        definitions={"psnr": "…"},
        unavailable={"lpips": "no weights"},
        step=400,
    )


def test_json_is_strict(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    write_json(make_report(), tmp_path / "new" / "metrics.json")
    data = json.loads((tmp_path / "new" / "metrics.json").read_text(), parse_constant=refuse)
    assert data["summary"]["ssim"] is None and data["per_frame"][0]["psnr"] is None
    assert data["step"] == 400 and data["split"] == "train"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["metrics.json"]


def test_csv(tmp_path):
    write_csv(make_report(), tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert rows[0] == {"name": "a", "time": "0", "psnr": "", "ssim": ""}
    assert rows[1]["psnr"] == "20.0"


def test_table():
    out = io.StringIO()
    print_report(make_report(), Console(file=out, width=100))
    text = out.getvalue()
    for part in ("2 of 9 train views, step 400", "no held-out views", "18.12", "foreground", "mask_iou", "no weights"):
        assert part in text
    assert "nan" not in text
    assert make_report().headline() == "demo train (2 views): psnr 20.00, ssim -, mask_iou 0.5000"
