"""What is read of a study."""

from nas.paths import StudyPaths
from nas.report.record import read_studies, read_study


def test_report_of_a_study_counts_every_trial(study: StudyPaths) -> None:
    report = read_study(study)
    assert (report.name, report.trained, len(report.retrained)) == ("tiny", 2, 1)
    assert sum(report.counts.values()) == len(report.trials)
    assert report.best in report.trials
    assert report.best.accuracy == max(row.accuracy for row in report.trials if row.accuracy is not None)


def test_report_of_all_studies_names_those_that_cannot_be_read(study: StudyPaths) -> None:
    other = study.folder.parent / "other"
    other.mkdir()
    (other / "study.json").write_text('{"space": "x"}')
    reports, broken = read_studies()
    assert [report.name for report in reports] == ["tiny"]
    assert len(broken) == 1
    assert broken[0].startswith(f"other: {other / 'study.json'}: overrides: is missing")
