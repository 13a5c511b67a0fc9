"""The 947 columns of the demonstration's data set, named in the manner of CMS NanoAOD.

A column's *kind* says how its values are distributed, which is what decides how well they compress:

===========  =====================================================================
pt           steeply falling, from a threshold
eta, phi     central, and flat in angle
mass, sum    positive, long-tailed
score        between 0 and 1, most near the ends
small        around zero, narrow
index        -1 for none, else a small number
id, count    a handful of values (int32, uint8)
often, rare  booleans, true in 70 % and in 3 % of the cases
const        one value everywhere
===========  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMN_COUNT = 947


@dataclass(frozen=True, slots=True)
class Collection:
    """A group of jagged columns that share one length per event, which ``n<name>`` holds.

    Attributes:
        mean: Mean number of objects in an event.
        columns: Name without the prefix, and kind, of each column.
    """

    name: str
    mean: float
    columns: tuple[tuple[str, str], ...]


def _columns(**names_by_kind: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for kind, names in names_by_kind.items() for name in names.split())


_KINEMATICS = {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass"}

COLLECTIONS = (
    Collection(
        "Jet",
        5.5,
        _columns(
            **_KINEMATICS,
            score="btagCSVV2 btagDeepB btagDeepCvB btagDeepCvL btagDeepFlavB btagDeepFlavCvB btagDeepFlavCvL"
            " btagDeepFlavQG chEmEF chFPV0EF chHEF muEF neEmEF neHEF qgl puIdDisc bRegRes cRegRes",
            small="area muonSubtrFactor rawFactor bRegCorr cRegCorr",
            index="electronIdx1 electronIdx2 muonIdx1 muonIdx2 genJetIdx",
            id="jetId puId nElectrons nMuons hadronFlavour partonFlavour",
            count="nConstituents cleanmask",
        ),
    ),
    Collection(
        "Muon",
        1.1,
        _columns(
            **_KINEMATICS,
            small="dxy dxyErr dxybs dz dzErr ip3d ptErr sip3d jetPtRelv2 tunepRelPt",
            score="jetRelIso miniPFRelIso_all miniPFRelIso_chg pfRelIso03_all pfRelIso03_chg pfRelIso04_all segmentComp"
            " softMva tkRelIso mvaLowPt mvaTTH",
            id="charge nStations nTrackerLayers pdgId tightCharge",
            often="highPurity inTimeMuon isGlobal isPFcand isStandalone isTracker looseId mediumId mediumPromptId"
            " softId softMvaId tightId triggerIdLoose",
            index="jetIdx fsrPhotonIdx genPartIdx",
            count="highPtId jetNDauCharged miniIsoId multiIsoId mvaId mvaLowPtId pfIsoId puppiIsoId tkIsoId genPartFlav"
            " cleanmask",
        ),
    ),
    Collection(
        "Electron",
        0.9,
        _columns(
            **_KINEMATICS,
            small="deltaEtaSC dxy dxyErr dz dzErr eInvMinusPInv energyErr hoe ip3d jetPtRelv2 r9 scEtOverPt sieie"
            " sip3d",
            score="dr03EcalRecHitSumEt dr03HcalDepth1TowerSumEt dr03TkSumPt dr03TkSumPtHEEP jetRelIso miniPFRelIso_all"
            " miniPFRelIso_chg mvaFall17V2Iso mvaFall17V2noIso pfRelIso03_all pfRelIso03_chg mvaTTH",
            id="charge cutBased pdgId tightCharge vidNestedWPBitmap vidNestedWPBitmapHEEP",
            often="convVeto cutBased_HEEP isPFcand mvaFall17V2Iso_WP80 mvaFall17V2Iso_WP90 mvaFall17V2Iso_WPL"
            " mvaFall17V2noIso_WP80 mvaFall17V2noIso_WP90 mvaFall17V2noIso_WPL",
            index="jetIdx photonIdx genPartIdx",
            count="jetNDauCharged lostHits seedGain genPartFlav cleanmask",
        ),
    ),
    Collection(
        "FatJet",
        0.3,
        _columns(
            **_KINEMATICS,
            score="btagCSVV2 btagDDBvLV2 btagDDCvBV2 btagDDCvLV2 btagDeepB btagHbb deepTagMD_H4qvsQCD"
            " deepTagMD_HbbvsQCD deepTagMD_TvsQCD deepTagMD_WvsQCD deepTagMD_ZHbbvsQCD deepTagMD_ZHccvsQCD"
            " deepTagMD_ZbbvsQCD deepTagMD_ZvsQCD deepTagMD_bbvsLight deepTagMD_ccvsLight deepTag_H deepTag_QCD"
            " deepTag_QCDothers deepTag_TvsQCD deepTag_WvsQCD deepTag_ZvsQCD particleNetMD_QCD particleNetMD_Xbb"
            " particleNetMD_Xcc particleNetMD_Xqq particleNet_H4qvsQCD particleNet_HbbvsQCD particleNet_HccvsQCD"
            " particleNet_QCD particleNet_TvsQCD particleNet_WvsQCD particleNet_ZvsQCD n2b1 n3b1 lsf3",
            small="area rawFactor tau1 tau2 tau3 tau4",
            sum="msoftdrop particleNet_mass",
            id="jetId hadronFlavour nBHadrons nCHadrons",
            index="electronIdx3SJ muonIdx3SJ genJetAK8Idx subJetIdx1 subJetIdx2",
            count="nConstituents",
        ),
    ),
    Collection(
        "Tau",
        0.7,
        _columns(
            **_KINEMATICS,
            small="dxy dz leadTkDeltaEta leadTkDeltaPhi puCorr",
            sum="chargedIso neutralIso photonsOutsideSignalCone rawIso rawIsodR03",
            score="leadTkPtOverTauPt rawMVAnewDM rawMVAoldDM rawMVAoldDMdR03",
            id="charge decayMode rawAntiEleCat",
            often="idAntiEleDeadECal idDecayMode idDecayModeNewDMs",
            index="jetIdx genPartIdx",
            count="idAntiEle idAntiMu idMVAnewDM idMVAoldDM idMVAoldDMdR03 genPartFlav cleanmask",
        ),
    ),
    Collection(
        "Photon",
        0.9,
        _columns(
            **_KINEMATICS,
            small="energyErr hoe r9 sieie",
            score="mvaID mvaID_Fall17V1p1 pfRelIso03_all pfRelIso03_chg",
            id="charge cutBased cutBased_Fall17V1Bitmap pdgId vidNestedWPBitmap",
            often="electronVeto isScEtaEB isScEtaEE mvaID_WP80 mvaID_WP90 pixelSeed",
            index="electronIdx jetIdx genPartIdx",
            count="seedGain genPartFlav cleanmask",
        ),
    ),
    Collection(
        "SV",
        1.0,
        _columns(
            **_KINEMATICS,
            small="dxy dxySig pAngle x y z",
            sum="dlen dlenSig chi2 ndof",
            id="charge",
            count="ntracks",
        ),
    ),
    Collection("GenPart", 23.0, _columns(**_KINEMATICS, id="pdgId status statusFlags", index="genPartIdxMother")),
    Collection("LHEPart", 5.2, _columns(**_KINEMATICS, sum="incomingpz", id="pdgId status spin")),
    Collection("GenJet", 2.6, _columns(**_KINEMATICS, id="partonFlavour", count="hadronFlavour")),
    Collection("GenJetAK8", 0.3, _columns(**_KINEMATICS, id="partonFlavour", count="hadronFlavour")),
    Collection("GenVisTau", 0.2, _columns(**_KINEMATICS, id="charge status", index="genPartIdxMother")),
    Collection("GenDressedLepton", 0.7, _columns(**_KINEMATICS, id="pdgId", rare="hasTauAnc")),
    Collection("GenIsolatedPhoton", 0.1, _columns(**_KINEMATICS)),
    Collection("CorrT1METJet", 2.0, _columns(pt="rawPt", eta="eta", phi="phi", small="area muonSubtrFactor")),
    Collection("SoftActivityJet", 4.0, _columns(pt="pt", eta="eta", phi="phi")),
    Collection("FsrPhoton", 0.1, _columns(pt="pt", eta="eta", phi="phi", score="dROverEt2 relIso03", index="muonIdx")),
    Collection("OtherPV", 2.9, _columns(small="z")),
)

_SCALARS = _columns(
    const="run luminosityBlock genTtbarId HTXS_stage_0 HTXS_njets25 HTXS_njets30 L1Reco_step L1simulation_step"
    " LHEWeight_originalXWGTUP LHE_NpNLO LHE_AlphaS",
    event="event",
    small="btagWeight_CSVV2 genWeight Generator_weight PV_x PV_y PV_z MET_MetUnclustEnUpDeltaX MET_MetUnclustEnUpDeltaY"
    " MET_covXY",
    phi="CaloMET_phi ChsMET_phi DeepMETResolutionTune_phi DeepMETResponseTune_phi GenMET_phi MET_phi MET_fiducialGenPhi"
    " PuppiMET_phi PuppiMET_phiJERDown PuppiMET_phiJERUp PuppiMET_phiJESDown PuppiMET_phiJESUp"
    " PuppiMET_phiUnclusteredDown PuppiMET_phiUnclusteredUp RawMET_phi RawPuppiMET_phi TkMET_phi",
    pt="CaloMET_pt ChsMET_pt DeepMETResolutionTune_pt DeepMETResponseTune_pt GenMET_pt MET_pt MET_fiducialGenPt"
    " PuppiMET_pt PuppiMET_ptJERDown PuppiMET_ptJERUp PuppiMET_ptJESDown PuppiMET_ptJESUp PuppiMET_ptUnclusteredDown"
    " PuppiMET_ptUnclusteredUp RawMET_pt RawPuppiMET_pt TkMET_pt HTXS_Higgs_pt LHE_Vpt",
    sum="CaloMET_sumEt ChsMET_sumEt MET_sumEt MET_sumPtUnclustered MET_significance MET_covXX MET_covYY PuppiMET_sumEt"
    " RawMET_sumEt RawPuppiMET_sumEt TkMET_sumEt LHE_HT LHE_HTIncoming PV_ndof PV_chi2 PV_score SoftActivityJetHT"
    " SoftActivityJetHT10 SoftActivityJetHT2 SoftActivityJetHT5 Generator_scalePDF fixedGridRhoFastjetAll"
    " fixedGridRhoFastjetCentral fixedGridRhoFastjetCentralCalo fixedGridRhoFastjetCentralChargedPileUp"
    " fixedGridRhoFastjetCentralNeutral Pileup_nTrueInt Pileup_pudensity Pileup_gpudensity",
    score="Generator_x1 Generator_x2 Generator_xpdf1 Generator_xpdf2 Generator_binvar",
    id="Generator_id1 Generator_id2 LHE_Njets LHE_Nb LHE_Nc LHE_Nuds LHE_Nglu PV_npvs PV_npvsGood Pileup_nPU"
    " Pileup_sumEOOT Pileup_sumLOOT SoftActivityJetNjets10 SoftActivityJetNjets2 SoftActivityJetNjets5",
    often="Flag_HBHENoiseFilter Flag_HBHENoiseIsoFilter Flag_CSCTightHaloFilter Flag_HcalStripHaloFilter"
    " Flag_hcalLaserEventFilter Flag_EcalDeadCellTriggerPrimitiveFilter Flag_goodVertices Flag_eeBadScFilter"
    " Flag_ecalLaserCorrFilter Flag_trkPOGFilters Flag_muonBadTrackFilter Flag_METFilters",
    rare="HLT_IsoMu20 HLT_IsoMu24 HLT_IsoMu27 HLT_Ele27_WPTight_Gsf HLT_Ele32_eta2p1_WPTight_Gsf",
)

# Trigger paths are objects with thresholds and conditions; the list ends where the data set has its 947 columns.
_TRIGGERS = tuple(
    f"HLT_{condition}{trigger}{threshold}{suffix}"
    for condition in ("", "Double", "Triple")
    for trigger in ("Mu", "Ele", "Photon", "PFJet", "PFHT", "CaloJet", "PFTau", "AK8PFJet")
    for threshold in (8, 17, 23, 33, 50, 75, 120, 200, 320, 450)
    for suffix in ("", "_eta2p1", "_BTagCSV0p45")
)


def event_columns() -> tuple[tuple[str, str], ...]:
    """Return name and kind of every column that has one value per event, apart from the collections' lengths."""
    jagged = sum(1 + len(collection.columns) for collection in COLLECTIONS)
    triggers = _TRIGGERS[: COLUMN_COUNT - jagged - len(_SCALARS)]
    return _SCALARS + tuple((name, "rare") for name in triggers)
