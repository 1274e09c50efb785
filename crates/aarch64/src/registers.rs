//! Encodings of system registers and system instructions (DDI 0487, C5 and D17): `op0<<14|op1<<11|CRn<<7|CRm<<3|op2`.

/// The encoding of a register or system instruction.
pub const fn encode(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    (op0 & 3) << 14 | (op1 & 7) << 11 | (crn & 15) << 7 | (crm & 15) << 3 | (op2 & 7)
}

/// op0, op1, CRn, CRm, op2 of an encoding.
pub const fn fields(encoding: u16) -> (u16, u16, u16, u16, u16) {
    (
        encoding >> 14,
        encoding >> 11 & 7,
        encoding >> 7 & 15,
        encoding >> 3 & 15,
        encoding & 7,
    )
}

// Debug

pub const MDCCINT_EL1: u16 = encode(2, 0, 0, 2, 0);
pub const OSDTRRX_EL1: u16 = encode(2, 0, 0, 0, 2);
pub const MDSCR_EL1: u16 = encode(2, 0, 0, 2, 2);
pub const OSDTRTX_EL1: u16 = encode(2, 0, 0, 3, 2);
pub const OSECCR_EL1: u16 = encode(2, 0, 0, 6, 2);
pub const DBGBVR0_EL1: u16 = encode(2, 0, 0, 0, 4);
pub const DBGBCR0_EL1: u16 = encode(2, 0, 0, 0, 5);
pub const DBGWVR0_EL1: u16 = encode(2, 0, 0, 0, 6);
pub const DBGWCR0_EL1: u16 = encode(2, 0, 0, 0, 7);
pub const MDRAR_EL1: u16 = encode(2, 0, 1, 0, 0);
pub const OSLAR_EL1: u16 = encode(2, 0, 1, 0, 4);
pub const OSLSR_EL1: u16 = encode(2, 0, 1, 1, 4);
pub const OSDLR_EL1: u16 = encode(2, 0, 1, 3, 4);
pub const DBGPRCR_EL1: u16 = encode(2, 0, 1, 4, 4);
pub const DBGCLAIMSET_EL1: u16 = encode(2, 0, 7, 8, 6);
pub const DBGCLAIMCLR_EL1: u16 = encode(2, 0, 7, 9, 6);
pub const DBGAUTHSTATUS_EL1: u16 = encode(2, 0, 7, 14, 6);
pub const MDCCSR_EL0: u16 = encode(2, 3, 0, 1, 0);
pub const DBGDTR_EL0: u16 = encode(2, 3, 0, 4, 0);
pub const DBGDTRRX_EL0: u16 = encode(2, 3, 0, 5, 0);

// Identification

pub const MIDR_EL1: u16 = encode(3, 0, 0, 0, 0);
pub const MPIDR_EL1: u16 = encode(3, 0, 0, 0, 5);
pub const REVIDR_EL1: u16 = encode(3, 0, 0, 0, 6);
pub const ID_PFR0_EL1: u16 = encode(3, 0, 0, 1, 0);
pub const ID_AA64PFR0_EL1: u16 = encode(3, 0, 0, 4, 0);
pub const ID_AA64PFR1_EL1: u16 = encode(3, 0, 0, 4, 1);
pub const ID_AA64PFR2_EL1: u16 = encode(3, 0, 0, 4, 2);
pub const ID_AA64ZFR0_EL1: u16 = encode(3, 0, 0, 4, 4);
pub const ID_AA64SMFR0_EL1: u16 = encode(3, 0, 0, 4, 5);
pub const ID_AA64DFR0_EL1: u16 = encode(3, 0, 0, 5, 0);
pub const ID_AA64DFR1_EL1: u16 = encode(3, 0, 0, 5, 1);
pub const ID_AA64AFR0_EL1: u16 = encode(3, 0, 0, 5, 4);
pub const ID_AA64AFR1_EL1: u16 = encode(3, 0, 0, 5, 5);
pub const ID_AA64ISAR0_EL1: u16 = encode(3, 0, 0, 6, 0);
pub const ID_AA64ISAR1_EL1: u16 = encode(3, 0, 0, 6, 1);
pub const ID_AA64ISAR2_EL1: u16 = encode(3, 0, 0, 6, 2);
pub const ID_AA64MMFR0_EL1: u16 = encode(3, 0, 0, 7, 0);
pub const ID_AA64MMFR1_EL1: u16 = encode(3, 0, 0, 7, 1);
pub const ID_AA64MMFR2_EL1: u16 = encode(3, 0, 0, 7, 2);
pub const ID_AA64MMFR3_EL1: u16 = encode(3, 0, 0, 7, 3);
pub const CCSIDR_EL1: u16 = encode(3, 1, 0, 0, 0);
pub const CLIDR_EL1: u16 = encode(3, 1, 0, 0, 1);
pub const AIDR_EL1: u16 = encode(3, 1, 0, 0, 7);
pub const CSSELR_EL1: u16 = encode(3, 2, 0, 0, 0);
pub const CTR_EL0: u16 = encode(3, 3, 0, 0, 1);
pub const DCZID_EL0: u16 = encode(3, 3, 0, 0, 7);

// Control

pub const SCTLR_EL1: u16 = encode(3, 0, 1, 0, 0);
pub const ACTLR_EL1: u16 = encode(3, 0, 1, 0, 1);
pub const CPACR_EL1: u16 = encode(3, 0, 1, 0, 2);
pub const TTBR0_EL1: u16 = encode(3, 0, 2, 0, 0);
pub const TTBR1_EL1: u16 = encode(3, 0, 2, 0, 1);
pub const TCR_EL1: u16 = encode(3, 0, 2, 0, 2);
pub const APIAKEYLO_EL1: u16 = encode(3, 0, 2, 1, 0);
pub const APIAKEYHI_EL1: u16 = encode(3, 0, 2, 1, 1);
pub const APIBKEYLO_EL1: u16 = encode(3, 0, 2, 1, 2);
pub const APIBKEYHI_EL1: u16 = encode(3, 0, 2, 1, 3);
pub const APDAKEYLO_EL1: u16 = encode(3, 0, 2, 2, 0);
pub const APDAKEYHI_EL1: u16 = encode(3, 0, 2, 2, 1);
pub const APDBKEYLO_EL1: u16 = encode(3, 0, 2, 2, 2);
pub const APDBKEYHI_EL1: u16 = encode(3, 0, 2, 2, 3);
pub const APGAKEYLO_EL1: u16 = encode(3, 0, 2, 3, 0);
pub const APGAKEYHI_EL1: u16 = encode(3, 0, 2, 3, 1);
pub const SPSR_EL1: u16 = encode(3, 0, 4, 0, 0);
pub const ELR_EL1: u16 = encode(3, 0, 4, 0, 1);
pub const SP_EL0: u16 = encode(3, 0, 4, 1, 0);
pub const SPSEL: u16 = encode(3, 0, 4, 2, 0);
pub const CURRENTEL: u16 = encode(3, 0, 4, 2, 2);
pub const PAN: u16 = encode(3, 0, 4, 2, 3);
pub const UAO: u16 = encode(3, 0, 4, 2, 4);
pub const NZCV: u16 = encode(3, 3, 4, 2, 0);
pub const DAIF: u16 = encode(3, 3, 4, 2, 1);
pub const DIT: u16 = encode(3, 3, 4, 2, 5);
pub const SSBS: u16 = encode(3, 3, 4, 2, 6);
pub const FPCR: u16 = encode(3, 3, 4, 4, 0);
pub const FPSR: u16 = encode(3, 3, 4, 4, 1);
pub const DSPSR_EL0: u16 = encode(3, 3, 4, 5, 0);
pub const DLR_EL0: u16 = encode(3, 3, 4, 5, 1);
pub const ICC_PMR_EL1: u16 = encode(3, 0, 4, 6, 0);
pub const AFSR0_EL1: u16 = encode(3, 0, 5, 1, 0);
pub const AFSR1_EL1: u16 = encode(3, 0, 5, 1, 1);
pub const ESR_EL1: u16 = encode(3, 0, 5, 2, 0);
pub const ERRIDR_EL1: u16 = encode(3, 0, 5, 3, 0);
pub const ERRSELR_EL1: u16 = encode(3, 0, 5, 3, 1);
pub const FAR_EL1: u16 = encode(3, 0, 6, 0, 0);
pub const PAR_EL1: u16 = encode(3, 0, 7, 4, 0);
pub const MAIR_EL1: u16 = encode(3, 0, 10, 2, 0);
pub const AMAIR_EL1: u16 = encode(3, 0, 10, 3, 0);
pub const LORSA_EL1: u16 = encode(3, 0, 10, 4, 0);
pub const LOREA_EL1: u16 = encode(3, 0, 10, 4, 1);
pub const LORN_EL1: u16 = encode(3, 0, 10, 4, 2);
pub const LORC_EL1: u16 = encode(3, 0, 10, 4, 3);
pub const LORID_EL1: u16 = encode(3, 0, 10, 4, 7);
pub const VBAR_EL1: u16 = encode(3, 0, 12, 0, 0);
pub const RVBAR_EL1: u16 = encode(3, 0, 12, 0, 1);
pub const ISR_EL1: u16 = encode(3, 0, 12, 1, 0);
pub const DISR_EL1: u16 = encode(3, 0, 12, 1, 1);
pub const CONTEXTIDR_EL1: u16 = encode(3, 0, 13, 0, 1);
pub const TPIDR_EL1: u16 = encode(3, 0, 13, 0, 4);
pub const TPIDR_EL0: u16 = encode(3, 3, 13, 0, 2);
pub const TPIDRRO_EL0: u16 = encode(3, 3, 13, 0, 3);
pub const CNTKCTL_EL1: u16 = encode(3, 0, 14, 1, 0);

// Performance monitors

pub const PMINTENSET_EL1: u16 = encode(3, 0, 9, 14, 1);
pub const PMINTENCLR_EL1: u16 = encode(3, 0, 9, 14, 2);
pub const PMMIR_EL1: u16 = encode(3, 0, 9, 14, 6);
pub const PMCR_EL0: u16 = encode(3, 3, 9, 12, 0);
pub const PMCNTENSET_EL0: u16 = encode(3, 3, 9, 12, 1);
pub const PMCNTENCLR_EL0: u16 = encode(3, 3, 9, 12, 2);
pub const PMOVSCLR_EL0: u16 = encode(3, 3, 9, 12, 3);
pub const PMSWINC_EL0: u16 = encode(3, 3, 9, 12, 4);
pub const PMSELR_EL0: u16 = encode(3, 3, 9, 12, 5);
pub const PMCEID0_EL0: u16 = encode(3, 3, 9, 12, 6);
pub const PMCEID1_EL0: u16 = encode(3, 3, 9, 12, 7);
pub const PMCCNTR_EL0: u16 = encode(3, 3, 9, 13, 0);
pub const PMXEVTYPER_EL0: u16 = encode(3, 3, 9, 13, 1);
pub const PMXEVCNTR_EL0: u16 = encode(3, 3, 9, 13, 2);
pub const PMUSERENR_EL0: u16 = encode(3, 3, 9, 14, 0);
pub const PMOVSSET_EL0: u16 = encode(3, 3, 9, 14, 3);
pub const PMEVCNTR0_EL0: u16 = encode(3, 3, 14, 8, 0);
pub const PMEVTYPER0_EL0: u16 = encode(3, 3, 14, 12, 0);
pub const PMCCFILTR_EL0: u16 = encode(3, 3, 14, 15, 7);

// Generic timers

pub const CNTFRQ_EL0: u16 = encode(3, 3, 14, 0, 0);
pub const CNTPCT_EL0: u16 = encode(3, 3, 14, 0, 1);
pub const CNTVCT_EL0: u16 = encode(3, 3, 14, 0, 2);
pub const CNTP_TVAL_EL0: u16 = encode(3, 3, 14, 2, 0);
pub const CNTP_CTL_EL0: u16 = encode(3, 3, 14, 2, 1);
pub const CNTP_CVAL_EL0: u16 = encode(3, 3, 14, 2, 2);
pub const CNTV_TVAL_EL0: u16 = encode(3, 3, 14, 3, 0);
pub const CNTV_CTL_EL0: u16 = encode(3, 3, 14, 3, 1);
pub const CNTV_CVAL_EL0: u16 = encode(3, 3, 14, 3, 2);

// Interrupt controller, processor interface (IHI 0069)

pub const ICC_IAR0_EL1: u16 = encode(3, 0, 12, 8, 0);
pub const ICC_EOIR0_EL1: u16 = encode(3, 0, 12, 8, 1);
pub const ICC_HPPIR0_EL1: u16 = encode(3, 0, 12, 8, 2);
pub const ICC_BPR0_EL1: u16 = encode(3, 0, 12, 8, 3);
pub const ICC_AP0R0_EL1: u16 = encode(3, 0, 12, 8, 4);
pub const ICC_AP0R1_EL1: u16 = encode(3, 0, 12, 8, 5);
pub const ICC_AP0R2_EL1: u16 = encode(3, 0, 12, 8, 6);
pub const ICC_AP0R3_EL1: u16 = encode(3, 0, 12, 8, 7);
pub const ICC_AP1R0_EL1: u16 = encode(3, 0, 12, 9, 0);
pub const ICC_AP1R1_EL1: u16 = encode(3, 0, 12, 9, 1);
pub const ICC_AP1R2_EL1: u16 = encode(3, 0, 12, 9, 2);
pub const ICC_AP1R3_EL1: u16 = encode(3, 0, 12, 9, 3);
pub const ICC_DIR_EL1: u16 = encode(3, 0, 12, 11, 1);
pub const ICC_RPR_EL1: u16 = encode(3, 0, 12, 11, 3);
pub const ICC_SGI1R_EL1: u16 = encode(3, 0, 12, 11, 5);
pub const ICC_ASGI1R_EL1: u16 = encode(3, 0, 12, 11, 6);
pub const ICC_SGI0R_EL1: u16 = encode(3, 0, 12, 11, 7);
pub const ICC_IAR1_EL1: u16 = encode(3, 0, 12, 12, 0);
pub const ICC_EOIR1_EL1: u16 = encode(3, 0, 12, 12, 1);
pub const ICC_HPPIR1_EL1: u16 = encode(3, 0, 12, 12, 2);
pub const ICC_BPR1_EL1: u16 = encode(3, 0, 12, 12, 3);
pub const ICC_CTLR_EL1: u16 = encode(3, 0, 12, 12, 4);
pub const ICC_SRE_EL1: u16 = encode(3, 0, 12, 12, 5);
pub const ICC_IGRPEN0_EL1: u16 = encode(3, 0, 12, 12, 6);
pub const ICC_IGRPEN1_EL1: u16 = encode(3, 0, 12, 12, 7);

// System instructions (SYS): caches

pub const IC_IALLUIS: u16 = encode(1, 0, 7, 1, 0);
pub const IC_IALLU: u16 = encode(1, 0, 7, 5, 0);
pub const IC_IVAU: u16 = encode(1, 3, 7, 5, 1);
pub const DC_IVAC: u16 = encode(1, 0, 7, 6, 1);
pub const DC_ISW: u16 = encode(1, 0, 7, 6, 2);
pub const DC_CSW: u16 = encode(1, 0, 7, 10, 2);
pub const DC_CISW: u16 = encode(1, 0, 7, 14, 2);
pub const DC_ZVA: u16 = encode(1, 3, 7, 4, 1);
pub const DC_CVAC: u16 = encode(1, 3, 7, 10, 1);
pub const DC_CVAU: u16 = encode(1, 3, 7, 11, 1);
pub const DC_CVAP: u16 = encode(1, 3, 7, 12, 1);
pub const DC_CIVAC: u16 = encode(1, 3, 7, 14, 1);

// System instructions: address translation

pub const AT_S1E1R: u16 = encode(1, 0, 7, 8, 0);
pub const AT_S1E1W: u16 = encode(1, 0, 7, 8, 1);
pub const AT_S1E0R: u16 = encode(1, 0, 7, 8, 2);
pub const AT_S1E0W: u16 = encode(1, 0, 7, 8, 3);
pub const AT_S1E1RP: u16 = encode(1, 0, 7, 9, 0);
pub const AT_S1E1WP: u16 = encode(1, 0, 7, 9, 1);

// System instructions: TLB

pub const TLBI_VMALLE1IS: u16 = encode(1, 0, 8, 3, 0);
pub const TLBI_VAE1IS: u16 = encode(1, 0, 8, 3, 1);
pub const TLBI_ASIDE1IS: u16 = encode(1, 0, 8, 3, 2);
pub const TLBI_VAAE1IS: u16 = encode(1, 0, 8, 3, 3);
pub const TLBI_VALE1IS: u16 = encode(1, 0, 8, 3, 5);
pub const TLBI_VAALE1IS: u16 = encode(1, 0, 8, 3, 7);
pub const TLBI_VMALLE1: u16 = encode(1, 0, 8, 7, 0);
pub const TLBI_VAE1: u16 = encode(1, 0, 8, 7, 1);
pub const TLBI_ASIDE1: u16 = encode(1, 0, 8, 7, 2);
pub const TLBI_VAAE1: u16 = encode(1, 0, 8, 7, 3);
pub const TLBI_VALE1: u16 = encode(1, 0, 8, 7, 5);
pub const TLBI_VAALE1: u16 = encode(1, 0, 8, 7, 7);

/// Every register and system instruction named here, for logs.
pub const NAMES: &[(u16, &str)] = &[
    (MDCCINT_EL1, "MDCCINT_EL1"),
    (OSDTRRX_EL1, "OSDTRRX_EL1"),
    (MDSCR_EL1, "MDSCR_EL1"),
    (OSDTRTX_EL1, "OSDTRTX_EL1"),
    (OSECCR_EL1, "OSECCR_EL1"),
    (DBGBVR0_EL1, "DBGBVR0_EL1"),
    (DBGBCR0_EL1, "DBGBCR0_EL1"),
    (DBGWVR0_EL1, "DBGWVR0_EL1"),
    (DBGWCR0_EL1, "DBGWCR0_EL1"),
    (MDRAR_EL1, "MDRAR_EL1"),
    (OSLAR_EL1, "OSLAR_EL1"),
    (OSLSR_EL1, "OSLSR_EL1"),
    (OSDLR_EL1, "OSDLR_EL1"),
    (DBGPRCR_EL1, "DBGPRCR_EL1"),
    (DBGCLAIMSET_EL1, "DBGCLAIMSET_EL1"),
    (DBGCLAIMCLR_EL1, "DBGCLAIMCLR_EL1"),
    (DBGAUTHSTATUS_EL1, "DBGAUTHSTATUS_EL1"),
    (MDCCSR_EL0, "MDCCSR_EL0"),
    (DBGDTR_EL0, "DBGDTR_EL0"),
    (DBGDTRRX_EL0, "DBGDTRRX_EL0"),
    (MIDR_EL1, "MIDR_EL1"),
    (MPIDR_EL1, "MPIDR_EL1"),
    (REVIDR_EL1, "REVIDR_EL1"),
    (ID_PFR0_EL1, "ID_PFR0_EL1"),
    (ID_AA64PFR0_EL1, "ID_AA64PFR0_EL1"),
    (ID_AA64PFR1_EL1, "ID_AA64PFR1_EL1"),
    (ID_AA64PFR2_EL1, "ID_AA64PFR2_EL1"),
    (ID_AA64ZFR0_EL1, "ID_AA64ZFR0_EL1"),
    (ID_AA64SMFR0_EL1, "ID_AA64SMFR0_EL1"),
    (ID_AA64DFR0_EL1, "ID_AA64DFR0_EL1"),
    (ID_AA64DFR1_EL1, "ID_AA64DFR1_EL1"),
    (ID_AA64AFR0_EL1, "ID_AA64AFR0_EL1"),
    (ID_AA64AFR1_EL1, "ID_AA64AFR1_EL1"),
    (ID_AA64ISAR0_EL1, "ID_AA64ISAR0_EL1"),
    (ID_AA64ISAR1_EL1, "ID_AA64ISAR1_EL1"),
    (ID_AA64ISAR2_EL1, "ID_AA64ISAR2_EL1"),
    (ID_AA64MMFR0_EL1, "ID_AA64MMFR0_EL1"),
    (ID_AA64MMFR1_EL1, "ID_AA64MMFR1_EL1"),
    (ID_AA64MMFR2_EL1, "ID_AA64MMFR2_EL1"),
    (ID_AA64MMFR3_EL1, "ID_AA64MMFR3_EL1"),
    (CCSIDR_EL1, "CCSIDR_EL1"),
    (CLIDR_EL1, "CLIDR_EL1"),
    (AIDR_EL1, "AIDR_EL1"),
    (CSSELR_EL1, "CSSELR_EL1"),
    (CTR_EL0, "CTR_EL0"),
    (DCZID_EL0, "DCZID_EL0"),
    (SCTLR_EL1, "SCTLR_EL1"),
    (ACTLR_EL1, "ACTLR_EL1"),
    (CPACR_EL1, "CPACR_EL1"),
    (TTBR0_EL1, "TTBR0_EL1"),
    (TTBR1_EL1, "TTBR1_EL1"),
    (TCR_EL1, "TCR_EL1"),
    (APIAKEYLO_EL1, "APIAKEYLO_EL1"),
    (APIAKEYHI_EL1, "APIAKEYHI_EL1"),
    (APIBKEYLO_EL1, "APIBKEYLO_EL1"),
    (APIBKEYHI_EL1, "APIBKEYHI_EL1"),
    (APDAKEYLO_EL1, "APDAKEYLO_EL1"),
    (APDAKEYHI_EL1, "APDAKEYHI_EL1"),
    (APDBKEYLO_EL1, "APDBKEYLO_EL1"),
    (APDBKEYHI_EL1, "APDBKEYHI_EL1"),
    (APGAKEYLO_EL1, "APGAKEYLO_EL1"),
    (APGAKEYHI_EL1, "APGAKEYHI_EL1"),
    (SPSR_EL1, "SPSR_EL1"),
    (ELR_EL1, "ELR_EL1"),
    (SP_EL0, "SP_EL0"),
    (SPSEL, "SPSEL"),
    (CURRENTEL, "CURRENTEL"),
    (PAN, "PAN"),
    (UAO, "UAO"),
    (NZCV, "NZCV"),
    (DAIF, "DAIF"),
    (DIT, "DIT"),
    (SSBS, "SSBS"),
    (FPCR, "FPCR"),
    (FPSR, "FPSR"),
    (DSPSR_EL0, "DSPSR_EL0"),
    (DLR_EL0, "DLR_EL0"),
    (ICC_PMR_EL1, "ICC_PMR_EL1"),
    (AFSR0_EL1, "AFSR0_EL1"),
    (AFSR1_EL1, "AFSR1_EL1"),
    (ESR_EL1, "ESR_EL1"),
    (ERRIDR_EL1, "ERRIDR_EL1"),
    (ERRSELR_EL1, "ERRSELR_EL1"),
    (FAR_EL1, "FAR_EL1"),
    (PAR_EL1, "PAR_EL1"),
    (MAIR_EL1, "MAIR_EL1"),
    (AMAIR_EL1, "AMAIR_EL1"),
    (LORSA_EL1, "LORSA_EL1"),
    (LOREA_EL1, "LOREA_EL1"),
    (LORN_EL1, "LORN_EL1"),
    (LORC_EL1, "LORC_EL1"),
    (LORID_EL1, "LORID_EL1"),
    (VBAR_EL1, "VBAR_EL1"),
    (RVBAR_EL1, "RVBAR_EL1"),
    (ISR_EL1, "ISR_EL1"),
    (DISR_EL1, "DISR_EL1"),
    (CONTEXTIDR_EL1, "CONTEXTIDR_EL1"),
    (TPIDR_EL1, "TPIDR_EL1"),
    (TPIDR_EL0, "TPIDR_EL0"),
    (TPIDRRO_EL0, "TPIDRRO_EL0"),
    (CNTKCTL_EL1, "CNTKCTL_EL1"),
    (PMINTENSET_EL1, "PMINTENSET_EL1"),
    (PMINTENCLR_EL1, "PMINTENCLR_EL1"),
    (PMMIR_EL1, "PMMIR_EL1"),
    (PMCR_EL0, "PMCR_EL0"),
    (PMCNTENSET_EL0, "PMCNTENSET_EL0"),
    (PMCNTENCLR_EL0, "PMCNTENCLR_EL0"),
    (PMOVSCLR_EL0, "PMOVSCLR_EL0"),
    (PMSWINC_EL0, "PMSWINC_EL0"),
    (PMSELR_EL0, "PMSELR_EL0"),
    (PMCEID0_EL0, "PMCEID0_EL0"),
    (PMCEID1_EL0, "PMCEID1_EL0"),
    (PMCCNTR_EL0, "PMCCNTR_EL0"),
    (PMXEVTYPER_EL0, "PMXEVTYPER_EL0"),
    (PMXEVCNTR_EL0, "PMXEVCNTR_EL0"),
    (PMUSERENR_EL0, "PMUSERENR_EL0"),
    (PMOVSSET_EL0, "PMOVSSET_EL0"),
    (PMEVCNTR0_EL0, "PMEVCNTR0_EL0"),
    (PMEVTYPER0_EL0, "PMEVTYPER0_EL0"),
    (PMCCFILTR_EL0, "PMCCFILTR_EL0"),
    (CNTFRQ_EL0, "CNTFRQ_EL0"),
    (CNTPCT_EL0, "CNTPCT_EL0"),
    (CNTVCT_EL0, "CNTVCT_EL0"),
    (CNTP_TVAL_EL0, "CNTP_TVAL_EL0"),
    (CNTP_CTL_EL0, "CNTP_CTL_EL0"),
    (CNTP_CVAL_EL0, "CNTP_CVAL_EL0"),
    (CNTV_TVAL_EL0, "CNTV_TVAL_EL0"),
    (CNTV_CTL_EL0, "CNTV_CTL_EL0"),
    (CNTV_CVAL_EL0, "CNTV_CVAL_EL0"),
    (ICC_IAR0_EL1, "ICC_IAR0_EL1"),
    (ICC_EOIR0_EL1, "ICC_EOIR0_EL1"),
    (ICC_HPPIR0_EL1, "ICC_HPPIR0_EL1"),
    (ICC_BPR0_EL1, "ICC_BPR0_EL1"),
    (ICC_AP0R0_EL1, "ICC_AP0R0_EL1"),
    (ICC_AP0R1_EL1, "ICC_AP0R1_EL1"),
    (ICC_AP0R2_EL1, "ICC_AP0R2_EL1"),
    (ICC_AP0R3_EL1, "ICC_AP0R3_EL1"),
    (ICC_AP1R0_EL1, "ICC_AP1R0_EL1"),
    (ICC_AP1R1_EL1, "ICC_AP1R1_EL1"),
    (ICC_AP1R2_EL1, "ICC_AP1R2_EL1"),
    (ICC_AP1R3_EL1, "ICC_AP1R3_EL1"),
    (ICC_DIR_EL1, "ICC_DIR_EL1"),
    (ICC_RPR_EL1, "ICC_RPR_EL1"),
    (ICC_SGI1R_EL1, "ICC_SGI1R_EL1"),
    (ICC_ASGI1R_EL1, "ICC_ASGI1R_EL1"),
    (ICC_SGI0R_EL1, "ICC_SGI0R_EL1"),
    (ICC_IAR1_EL1, "ICC_IAR1_EL1"),
    (ICC_EOIR1_EL1, "ICC_EOIR1_EL1"),
    (ICC_HPPIR1_EL1, "ICC_HPPIR1_EL1"),
    (ICC_BPR1_EL1, "ICC_BPR1_EL1"),
    (ICC_CTLR_EL1, "ICC_CTLR_EL1"),
    (ICC_SRE_EL1, "ICC_SRE_EL1"),
    (ICC_IGRPEN0_EL1, "ICC_IGRPEN0_EL1"),
    (ICC_IGRPEN1_EL1, "ICC_IGRPEN1_EL1"),
    (IC_IALLUIS, "IC_IALLUIS"),
    (IC_IALLU, "IC_IALLU"),
    (IC_IVAU, "IC_IVAU"),
    (DC_IVAC, "DC_IVAC"),
    (DC_ISW, "DC_ISW"),
    (DC_CSW, "DC_CSW"),
    (DC_CISW, "DC_CISW"),
    (DC_ZVA, "DC_ZVA"),
    (DC_CVAC, "DC_CVAC"),
    (DC_CVAU, "DC_CVAU"),
    (DC_CVAP, "DC_CVAP"),
    (DC_CIVAC, "DC_CIVAC"),
    (AT_S1E1R, "AT_S1E1R"),
    (AT_S1E1W, "AT_S1E1W"),
    (AT_S1E0R, "AT_S1E0R"),
    (AT_S1E0W, "AT_S1E0W"),
    (AT_S1E1RP, "AT_S1E1RP"),
    (AT_S1E1WP, "AT_S1E1WP"),
    (TLBI_VMALLE1IS, "TLBI_VMALLE1IS"),
    (TLBI_VAE1IS, "TLBI_VAE1IS"),
    (TLBI_ASIDE1IS, "TLBI_ASIDE1IS"),
    (TLBI_VAAE1IS, "TLBI_VAAE1IS"),
    (TLBI_VALE1IS, "TLBI_VALE1IS"),
    (TLBI_VAALE1IS, "TLBI_VAALE1IS"),
    (TLBI_VMALLE1, "TLBI_VMALLE1"),
    (TLBI_VAE1, "TLBI_VAE1"),
    (TLBI_ASIDE1, "TLBI_ASIDE1"),
    (TLBI_VAAE1, "TLBI_VAAE1"),
    (TLBI_VALE1, "TLBI_VALE1"),
    (TLBI_VAALE1, "TLBI_VAALE1"),
];

/// The name of an encoding, or its fields in the generic form `S3_0_C1_C0_0`.
pub fn name(encoding: u16) -> String {
    match NAMES.iter().find(|n| n.0 == encoding) {
        Some((_, name)) => (*name).to_string(),
        None => {
            let (op0, op1, crn, crm, op2) = fields(encoding);
            format!("S{op0}_{op1}_C{crn}_C{crm}_{op2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_the_instructions() {
        // mrs x0, midr_el1 is d5380000; mrs x0, cntvct_el0 is d53be040.
        assert_eq!(u32::from(MIDR_EL1), 0xd538_0000 >> 5 & 0xffff);
        assert_eq!(u32::from(CNTVCT_EL0), 0xd53b_e040 >> 5 & 0xffff);
        // tlbi vmalle1is is d508831f; its op0 of 1 is bits 20:19.
        assert_eq!(u32::from(TLBI_VMALLE1IS), 0xd508_831f >> 5 & 0xffff);
        assert_eq!(name(VBAR_EL1), "VBAR_EL1");
        assert_eq!(name(encode(3, 7, 15, 2, 1)), "S3_7_C15_C2_1");
    }

    #[test]
    fn no_two_names_share_an_encoding() {
        let mut seen = std::collections::HashSet::new();
        for (encoding, name) in NAMES {
            assert!(seen.insert(encoding), "{name}");
        }
    }
}
